"""What the NPU tests share: a tiny variant, and its pipeline in plain onnxruntime on the CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.models import describe
from converters.onnx import npu
from converters.reference import logits as reference_logits
from quant.recipe import Recipe

INT4 = Recipe.preset("int4")
WINDOW = 8
SHAPES_ON_NPU = (
    "phi3-mini-4k",
    "phi3-mini-128k",
    "phi3-medium",
    "phi3.5-mini",
    "phi4",
    "phi4-mini",
    "uneven",
)
"""odd-heads has matrices that cannot be cut into blocks; odd-vocab is no shape of its own here."""


def write_npu(
    checkpoint: Path, directory: Path, *, context: int = 40, window: int = WINDOW, recipe: Recipe = INT4
) -> Decoder:
    """A variant whose prompts run `window` tokens at a time."""
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        writer = npu.open_writer(
            decoder, recipe, directory, context_length=context, checkpoint_directory=checkpoint, window=window
        )
        for weight in decoder.weights():
            writer.write(weight, 0, recipe.encode(weight, opened.weight_rows(weight, 0, weight.rows)))
        writer.close()
    return decoder


def expected(checkpoint: Path, ids: Sequence[int], recipe: Recipe = INT4) -> NDArray[np.float32]:
    """Logits of the reference on the weights that the recipe stores."""

    def through(weight: Weight, start: int, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        return recipe.decode(recipe.encode(weight, raw, start=start))

    with Checkpoint.open(checkpoint) as opened:
        return reference_logits(opened, describe(opened), ids, transform=through)


def cosine(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Of two arrays as vectors, in float64."""
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


class CpuPipeline:
    """The four graphs on onnxruntime's CPU provider, fed as onnxruntime-genai feeds them."""

    def __init__(self, directory: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._stages = {
            stage: ort.InferenceSession(str(directory / f"{stage}.onnx"), options)
            for stage in ("embeddings", "context", "iterator", "lm_head")
        }
        config = json.loads((directory / "genai_config.json").read_bytes())["model"]
        self._cache_length = config["context_length"]
        self.window = config["decoder"]["sliding_window"]["window_size"]
        self._cache = {
            i.name: np.zeros(i.shape, np.float16)
            for i in self._stages["context"].get_inputs()
            if i.name.startswith("past_key_values")
        }

    def prompt(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """From position 0, window by window, the last one padded with token 0."""
        rows = []
        for start in range(0, len(ids), self.window):
            chunk = list(ids[start : start + self.window])
            padded = chunk + [0] * (self.window - len(chunk))
            rows.append(self._run("context", padded, start + self.window - 1)[: len(chunk)])
        return np.concatenate(rows)

    def token(self, token: int, position: int) -> NDArray[np.float32]:
        return self._run("iterator", [token], position)[0]

    def _run(self, stage: str, ids: Sequence[int], last: int) -> NDArray[np.float32]:
        (hidden,) = self._stages["embeddings"].run(None, {"input_ids": np.array([ids], np.int64)})
        feeds = {
            "hidden": hidden,
            "past_seq_len": np.array([[last]], np.int32),
            "total_seq_len": np.array([self._cache_length], np.int32),
            **self._cache,
        }
        after, *present = self._stages[stage].run(None, feeds)
        self._cache = dict(zip(self._cache, present, strict=True))
        (logits,) = self._stages["lm_head"].run(None, {"hidden.after": after})
        return np.asarray(logits[0])
