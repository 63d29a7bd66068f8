"""The data files of a multimodal variant, and the graphs that share them.

model.onnx.data              the decoder: embedding, layers, head, rotary tables
adapter-NAME.onnx.data       one built-in adapter
vision.onnx.data, speech.onnx.data

model.onnx                   decoder for prompts of text alone
model-NAME.onnx              decoder with that adapter
embedding.onnx               ids and features to what the decoder takes; of model.onnx.data
vision.onnx, speech.onnx     encoders
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.multimodal import Multimodal
from converters.onnx.built_in import BuiltIn, plan_built_in
from converters.onnx.decoder_graph import ACCURACY_LEVEL, build_embedded
from converters.onnx.embedding_graph import build_embedding
from converters.onnx.encoder_parts import plan_encoder
from converters.onnx.layout import Layout, plan
from converters.onnx.speech_graph import DATA_FILE as SPEECH_DATA
from converters.onnx.speech_graph import build_speech
from converters.onnx.vision_graph import DATA_FILE as VISION_DATA
from converters.onnx.vision_graph import build_vision
from converters.writer import Storages

if TYPE_CHECKING:
    import onnx

EMBEDDING_GRAPH, VISION_GRAPH, SPEECH_GRAPH = "embedding.onnx", "vision.onnx", "speech.onnx"


def decoder_graph_file(adapter: str | None) -> str:
    """The graph of the decoder with that adapter."""
    return "model.onnx" if adapter is None else f"model-{adapter}.onnx"


@dataclass(frozen=True)
class Files:
    """Where every tensor lies; see the module."""

    decoder: Layout
    adapters: Mapping[str, BuiltIn]
    vision: Layout | None
    speech: Layout | None

    @property
    def layouts(self) -> list[Layout]:
        """All of them, the decoder's last: it has the rotary tables."""
        encoders = [layout for layout in (self.vision, self.speech) if layout is not None]
        return [*encoders, *(built_in.layout for built_in in self.adapters.values()), self.decoder]

    @property
    def nbytes(self) -> int:
        return sum(layout.nbytes for layout in self.layouts)


def plan_files(model: Multimodal, recipe: Storages, context_length: int) -> Files:
    decoder = model.decoder
    return Files(
        plan(decoder, recipe, context_length),
        {
            lora.name: plan_built_in(decoder, lora, recipe, f"adapter-{lora.name}.onnx.data")
            for lora in decoder.adapters
        },
        plan_encoder(model.vision, recipe, VISION_DATA) if model.vision else None,
        plan_encoder(model.speech, recipe, SPEECH_DATA) if model.speech else None,
    )


def graphs(
    model: Multimodal, files: Files, context_length: int, *, accuracy_level: int = ACCURACY_LEVEL
) -> dict[str, onnx.ModelProto]:
    """Every graph by its file's name."""
    decoder = replace(model.decoder, adapters=())
    made = {
        decoder_graph_file(name): build_embedded(
            decoder, files.decoder, context_length, built_in, accuracy_level=accuracy_level
        )
        for name, built_in in [(None, None), *files.adapters.items()]
    }
    made[EMBEDDING_GRAPH] = build_embedding(model, files.decoder)
    if model.vision and files.vision:
        made[VISION_GRAPH] = build_vision(model.vision, files.vision, accuracy_level=accuracy_level)
    if model.speech and files.speech:
        made[SPEECH_GRAPH] = build_speech(model.speech, files.speech, accuracy_level=accuracy_level)
    return made
