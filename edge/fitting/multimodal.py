"""What a folder of a model that takes images and speech takes to run, as edge.runtimes.multimodal sets it up.

To what the decoder takes (edge.fitting.genai) come the largest of its adapters, for one decoder is loaded at a
time; the encoders, which stay once they were needed; and of the workspace what one crop of an image takes. The
figures of the parts are those of the same kernels in a decoder; together they are not measured.
"""

from __future__ import annotations

from converters.multimodal import Multimodal
from converters.onnx.multimodal.layout import plan_files
from converters.writer import Storages
from edge.engine_settings import EngineSettings
from edge.fitting import genai
from edge.fitting.memory import Memory


def memory(
    model: Multimodal, recipe: Storages, context_length: int, *, filled: int, settings: EngineSettings
) -> Memory:
    """`filled` as in `edge.fitting.genai.memory`."""
    text = genai.memory(model.decoder, recipe, context_length, filled=filled, settings=settings)
    files = plan_files(model, recipe, context_length)
    adapters = [built_in.layout.nbytes for built_in in files.adapters.values()]
    encoders = [layout.nbytes for layout in (files.vision, files.speech) if layout]
    # Packed for the kernel, and the pages that it was packed from.
    more = 2 * (max(adapters, default=0) + sum(encoders))
    crop = 0
    if model.vision:
        patches = model.vision.side**2
        crop = 4 * patches * (patches * model.vision.heads + 8 * model.vision.hidden_size)
    return Memory(
        weights=text.weights + more,
        kv_cache=text.kv_cache,
        workspace=max(text.workspace, crop),
        runtime=text.runtime,
        file_backed=text.file_backed + more // 2,
    )
