"""What int8 costs the encoders of a checkpoint: `python -m benchmarks.encoders CHECKPOINT`.

A line for each encoder and storage: bytes of its data file, seconds for the probe's images or clips
(benchmarks.encoder_probe) on one thread, and how far its features are from those of the numpy reference. "int8" is
int8 weights with float32 activations, "int8 x int8" what bundles ship: activations rounded to int8 in blocks too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.encoder_probe import probe_clips, probe_images
from converters.checkpoint import Checkpoint
from converters.encoders import Speech, Vision
from converters.errors import UnsupportedError
from converters.feature_error import FeatureError, feature_error
from converters.models import describe_whole
from converters.multimodal import Multimodal
from converters.onnx import speech_graph, vision_graph
from converters.onnx.data_file import DataFile
from converters.onnx.encoder_parts import plan_encoder
from converters.speech_reference import speech_features
from converters.vision_reference import image_features
from quant.recipe import Recipe

_STEP = 1 << 12
_CASES = (("f32", "f32", 0), ("int8", "int8", 0), ("int8 x int8", "int8", 4))


@dataclass(frozen=True)
class Row:
    encoder: str
    case: str
    nbytes: int
    seconds: float
    error: FeatureError


def measure(checkpoint: Checkpoint, model: Multimodal) -> Iterator[Row]:
    """One row for each encoder that the model has and each case."""
    for encoder in (model.vision, model.speech):
        if encoder is None:
            continue
        expected, feeds = _probe(checkpoint, encoder)
        for case, precision, level in _CASES:
            with tempfile.TemporaryDirectory() as directory:
                nbytes = write(checkpoint, encoder, Recipe.preset(precision), Path(directory), level)
                options = ort.SessionOptions()
                options.intra_op_num_threads = 1
                session = ort.InferenceSession(f"{directory}/encoder.onnx", options)
                session.run(None, feeds)
                start = time.perf_counter()
                found = np.asarray(session.run(None, feeds)[0])
                seconds = time.perf_counter() - start
            name = type(encoder).__name__.lower()
            yield Row(name, case, nbytes, seconds, feature_error(found, expected))


def write(
    checkpoint: Checkpoint, encoder: Vision | Speech, recipe: Recipe, directory: Path, accuracy_level: int
) -> int:
    """`encoder.onnx` and its data file, row chunk by row chunk; returns the bytes of the latter."""
    if isinstance(encoder, Vision):
        layout = plan_encoder(encoder, recipe, vision_graph.DATA_FILE)
        graph = vision_graph.build_vision(encoder, layout, accuracy_level=accuracy_level)
    else:
        layout = plan_encoder(encoder, recipe, speech_graph.DATA_FILE)
        graph = speech_graph.build_speech(encoder, layout, accuracy_level=accuracy_level)
    (directory / "encoder.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    file = DataFile(layout, directory)
    for weight in encoder.weights():
        for start in range(0, weight.rows, _STEP):
            raw = checkpoint.weight_rows(weight, start, min(start + _STEP, weight.rows))
            file.write(weight, start, file.pack(weight, recipe.encode(weight, raw, start=start)))
    file.close()
    return layout.nbytes


def _probe(
    checkpoint: Checkpoint, encoder: Vision | Speech
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Expected features, and the inputs of the graph."""
    if isinstance(encoder, Vision):
        pixels, sizes, seen = probe_images(encoder)
        feeds: dict[str, NDArray[Any]] = {"pixel_values": pixels, "image_sizes": sizes}
        if seen is not None:
            feeds["image_attention_mask"] = seen.astype(np.float32)
        return image_features(checkpoint, encoder, pixels, sizes, seen), feeds
    frames, lengths, mask = probe_clips(checkpoint, encoder)
    feeds = {
        "audio_embeds": frames,
        "audio_attention_mask": mask,
        "audio_sizes": lengths,
        "audio_projection_mode": np.array([speech_graph.SPEECH_ALONE]),
    }
    return speech_features(checkpoint, encoder, frames, lengths, mask), feeds


def main() -> None:
    parser = argparse.ArgumentParser(description="What int8 costs the encoders of a checkpoint.")
    parser.add_argument("checkpoint", type=Path)
    with Checkpoint.open(parser.parse_args().checkpoint) as checkpoint:
        model = describe_whole(checkpoint)
        if not isinstance(model, Multimodal):
            raise UnsupportedError("a model of text alone has no encoders", hint="give a multimodal one")
        print(
            "| encoder | weights | MB | seconds | relative error | worst cosine |\n|---|---|---|---|---|---|"
        )
        for row in measure(checkpoint, model):
            print(
                f"| {row.encoder} | {row.case} | {row.nbytes / 1e6:.1f} | {row.seconds:.2f} "
                f"| {row.error.relative:.2e} | {row.error.worst_cosine:.6f} |"
            )


if __name__ == "__main__":
    main()
