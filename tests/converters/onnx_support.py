"""What the ONNX tests share: convert a checkpoint, run the graph in onnxruntime, ask transformers the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxruntime_genai as og
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from converters import onnx as onnx_room
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.models import describe
from converters.onnx.decoder_graph import build
from converters.onnx.layout import plan
from converters.rooms import Room
from converters.writer import Encoded
from quant.recipe import Recipe, Rule

TOLERANCE = 1e-4
"""Float32 logits of order 1: two engines sum in different orders, and at 4,100 positions one float32 rounding of
position * frequency is already 2e-4 radians. Measured: 4e-6 to 1.2e-5. A real fault moves logits by 0.1 or more."""

F32 = Recipe.preset("f32")


def uniform(storage: Any) -> Recipe:
    """Every matrix in one storage, embedding and lm_head too."""
    return Recipe(storage, (Rule("*", storage, "cast" if storage in ("f32", "f16", "bf16") else "rtn"),))


def convert(
    checkpoint: Path,
    directory: Path,
    recipe: Recipe = F32,
    *,
    context_length: int = 256,
    accuracy_level: int | None = None,
    room: Room = onnx_room,
) -> Decoder:
    """Write a variant of `room`; `accuracy_level` 0: the graph whose MatMulNBits keeps activations in float32."""
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        writer = room.open_writer(
            decoder,
            recipe,
            directory,
            context_length=context_length,
            checkpoint_directory=checkpoint,
            model_name="",
        )
        for weight in decoder.weights():
            raw = opened.weight_rows(weight, 0, weight.rows)
            writer.write(weight, 0, recipe.encode(weight, raw))
        writer.close()
    if accuracy_level is not None:
        layout = plan(decoder, recipe, context_length)
        model = build(decoder, layout, context_length, accuracy_level=accuracy_level)
        (directory / "model.onnx").write_bytes(model.SerializeToString())
    return decoder


class Session:
    """The graph in plain onnxruntime, its KV cache growing."""

    def __init__(self, directory: Path, batch: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(str(directory / "model.onnx"), options)
        past = [i for i in self._session.get_inputs() if i.name.startswith("past_key_values")]
        self._cache = {i.name: np.zeros((batch, i.shape[1], 0, i.shape[3]), np.float32) for i in past}
        self.length = 0

    def run(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every new position, [len(ids), vocabulary]."""
        self.length += len(ids)
        return self.run_batch(np.array([ids]), np.ones((1, self.length), np.int64))[0]

    def run_batch(self, ids: NDArray[Any], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.run_feeds({"input_ids": ids.astype(np.int64), "attention_mask": mask})

    def run_feeds(self, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits for these inputs and the cache, which grows."""
        logits, *present = self._session.run(None, {**feeds, **self._cache})
        self._cache = dict(zip(self._cache, present, strict=True))
        return np.asarray(logits, np.float32)


class PositionedSession(Session):
    """A graph that takes the positions as an input."""

    def run_batch(self, ids: NDArray[Any], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        positions = np.arange(self.length - ids.shape[1], self.length)[None].repeat(len(ids), 0)
        return self.run_feeds(
            {"input_ids": ids.astype(np.int64), "position_ids": positions, "attention_mask": mask}
        )


def in_chunks(session: Session, ids: Sequence[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Logits of every position when `ids` come in chunks of these sizes."""
    assert sum(sizes) == len(ids)
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [session.run(ids[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate(parts)


def generator(directory: Path, max_length: int) -> og.Generator:
    """A greedy onnxruntime-genai generator for one sequence."""
    model = og.Model(str(directory))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=max_length, do_sample=False)
    return og.Generator(model, params)


class Oracle:
    """transformers in float32, by default on the checkpoint's own weights."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def load(self, decoder: Decoder, values: Callable[[Weight], NDArray[np.float32]]) -> None:
        """Replace every weight, by the tensor rows that it was read from."""
        tensors = self._model.state_dict()
        for weight in decoder.weights():
            rows = torch.from_numpy(np.ascontiguousarray(values(weight)))
            for part in weight.parts:
                count = part.stop - part.start
                tensors[part.tensor][part.start : part.stop] = rows[:count]
                rows = rows[count:]

    def logits(self, ids: Sequence[int], last: int = 0) -> NDArray[np.float32]:
        """Logits of the last `last` positions (0: all), from a fresh prefill."""
        with torch.no_grad():
            out = self._model(torch.tensor([list(ids)]), use_cache=False, logits_to_keep=last)
        return np.asarray(out.logits[0].numpy())


def through_codec(checkpoint: Path, recipe: Recipe) -> Callable[[Weight], NDArray[np.float32]]:
    """What a recipe makes of each weight."""

    def values(weight: Weight) -> NDArray[np.float32]:
        with Checkpoint.open(checkpoint) as opened:
            encoded: Encoded = recipe.encode(weight, opened.weight_rows(weight, 0, weight.rows))
        return Recipe.decode(encoded)

    return values


def random_ids(decoder: Decoder, count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(5, decoder.vocab_size, count)]
