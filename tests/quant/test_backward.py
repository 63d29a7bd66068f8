"""The backward pass against torch's autograd through transformers, and what it keeps in memory."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import Phi3ForCausalLM

from converters import forward, reference
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError
from converters.models import describe
from quant.activation_store import OnDisk
from quant.backward import BackwardPass, Observer, backward
from tests.checkpoints import altered

Tiny = Callable[..., Path]
Floats = NDArray[np.float32]
# float32 on both sides, sums in another order; a wrong term of any derivative is off by percents.
CLOSE = 1e-4
# Tied, partial rotary, LongRoPE; all channels rotated, with an amplitude; a window shorter than the sequences; one kv
# head; heads wider than the model.
KINDS: dict[str, dict[str, Any]] = {
    "phi4-mini": {},
    "phi3-mini-128k": {},
    "phi3-mini-4k": {"sliding_window": 7},
    "phi4": {},
    "uneven": {},
    "odd-heads": {},
}


class Gradients(Observer):
    """The gradient of the summed loss with respect to each weight."""

    def __init__(self, decoder: Decoder) -> None:
        self.of = {w.name: np.zeros(w.shape, np.float64) for w in decoder.weights()}
        self._head = self.of[decoder.lm_head.name]
        self._embedding = self.of[decoder.embedding.name]
        self._inputs: list[Floats] = []

    def on_linear(self, weight: Weight, inputs: Floats, gradients: Floats) -> None:
        self.of[weight.name] += gradients.T @ inputs

    def on_gain(self, weight: Weight, gradient: Floats) -> None:
        self.of[weight.name] += gradient

    def on_head(self, start: int, rows: Floats, inputs: Floats, probabilities: Floats) -> None:
        self._head[start : start + len(rows)] += probabilities.T @ inputs
        if start == 0:
            self._inputs.append(inputs.copy())

    def on_embedding(self, tokens: NDArray[np.int64], gradients: Floats) -> None:
        np.add.at(self._embedding, tokens, gradients)

    def subtract_labels(self, labels: NDArray[np.int64]) -> None:
        for inputs, wanted in zip(self._inputs, labels, strict=True):
            np.subtract.at(self._head, wanted, inputs)


def windows(count: int, length: int, vocab: int = 640) -> NDArray[np.int64]:
    return np.random.default_rng(length).integers(0, vocab, (count, length))


@contextmanager
def opened(directory: Path) -> Iterator[tuple[Checkpoint, Decoder]]:
    with Checkpoint.open(directory) as checkpoint:
        yield checkpoint, describe(checkpoint)


def ours(
    directory: Path, ids: NDArray[np.int64], scored: slice, **options: Any
) -> tuple[Decoder, Gradients, BackwardPass]:
    with opened(directory) as (checkpoint, decoder):
        seen = Gradients(decoder)
        found = backward(checkpoint, decoder, ids, seen, scored=scored, **options)
    seen.subtract_labels(found.labels)
    return decoder, seen, found


def theirs(
    directory: Path, ids: NDArray[np.int64], scored: slice, labels: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], float]:
    model = Phi3ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    # torch gives the padding token's embedding no gradient.
    model.model.embed_tokens.padding_idx = None
    total = 0.0
    for window, wanted in zip(ids, labels, strict=True):
        logits = model(torch.tensor(window[None]), use_cache=False).logits[0][scored]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum")
        torch.autograd.backward(loss)
        total += float(loss.detach())
    named = {n: p.grad.double().numpy() for n, p in model.named_parameters() if p.grad is not None}
    return named, total / labels.size


def tensor_gradients(decoder: Decoder, gradients: Gradients) -> dict[str, NDArray[np.float64]]:
    """By the checkpoint's tensors: those of fused weights one above the other."""
    parts: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for weight in decoder.weights():
        (part,) = weight.parts
        parts.setdefault(part.tensor, []).append((part.start, gradients.of[weight.name]))
    return {t: np.concatenate([g for _, g in sorted(rows, key=lambda p: p[0])]) for t, rows in parts.items()}


@pytest.mark.parametrize("name", KINDS)
def test_equals_autograd_on_every_kind(tiny: Tiny, name: str) -> None:
    directory = tiny(name, dtype="f32", **KINDS[name])
    ids, scored = windows(3, 24), slice(9, 22)
    labels = windows(3, 13)
    decoder, gradients, found = ours(directory, ids, scored, labels=labels)
    wanted, loss = theirs(directory, ids, scored, labels)
    mine = tensor_gradients(decoder, gradients)
    assert set(mine) == set(wanted)
    for tensor, gradient in wanted.items():
        distance = np.linalg.norm(mine[tensor] - gradient) / np.linalg.norm(gradient)
        assert distance < CLOSE, tensor
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_score_blocks_chunks_and_stores_do_not_matter(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tiny("phi3-mini-4k", sliding_window=7)
    ids, scored = windows(2, 20), slice(3, 19)
    _, whole, before = ours(directory, ids, scored)
    monkeypatch.setattr(reference, "CHUNK_BYTES", 5000)
    monkeypatch.setattr("quant.layer_gradient.SCORE_BYTES", 4 * 20 * 6)
    monkeypatch.setattr(forward, "SCORE_BYTES", 4 * 20 * 9)
    _, cut, after = ours(directory, ids, scored, store=OnDisk(tmp_path))
    np.testing.assert_array_equal(after.labels, before.labels)
    for weight, gradient in whole.of.items():
        assert np.linalg.norm(cut.of[weight] - gradient) < CLOSE * np.linalg.norm(gradient), weight
    assert list(tmp_path.iterdir()) == []


def test_labels_are_drawn_from_the_models_own_predictions(tiny: Tiny) -> None:
    """The tokens drawn after the same text in many windows, against its distribution: total variation.

    n draws of tokens of probability p are off by sum sqrt(2 p (1 - p) / (pi n)) / 2 on average (less for rare
    tokens, where a Gaussian is too wide); tokens drawn uniformly would be off by more than twice that.
    """
    ids, repeats = windows(1, 2), 4000
    with opened(tiny("phi4")) as (checkpoint, decoder):
        decoder = dataclasses.replace(decoder, layers=())
        logits = reference.logits(checkpoint, decoder, ids[0].tolist())[-1].astype(np.float64)
        same = np.repeat(ids, repeats, axis=0)
        drawn = backward(checkpoint, decoder, same, Observer(), scored=slice(1, 2)).labels[:, 0]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    share = np.bincount(drawn, minlength=p.size) / repeats
    expected = np.sqrt(2 * p * (1 - p) / (np.pi * repeats)).sum() / 2
    assert expected < np.abs(p - 1 / p.size).sum() / 2 / 2
    assert np.abs(share - p).sum() / 2 < 1.2 * expected


def test_memory_does_not_grow_with_depth_when_spilled(tiny: Tiny, tmp_path: Path) -> None:
    peaks = []
    for layers in (2, 10):
        with opened(tiny("phi4", num_hidden_layers=layers)) as (checkpoint, decoder):
            tracemalloc.start()
            backward(checkpoint, decoder, windows(4, 64), Observer(), store=OnDisk(tmp_path))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Eight more layers cost less than the stored input of one, 4 x 64 x 128 floats.
    assert peaks[1] - peaks[0] < 4 * 64 * 128 * 4


def test_tokens_outside_the_vocabulary_are_refused(tiny: Tiny) -> None:
    with opened(tiny("phi4")) as (checkpoint, decoder), pytest.raises(ValueError, match=r"0\.\.639"):
        backward(checkpoint, decoder, np.array([[1, 640]]), Observer())


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("model.layers.1.mlp.down_proj.weight", r"layers\.1\.mlp\.down row 2 column 3 is nan"),
        ("model.layers.0.self_attn.qkv_proj.weight", r"layers\.0\.attention\.q row 2 column 3 is nan"),
        ("model.norm.weight", r"final_norm row 2 is nan"),
        ("lm_head.weight", r"lm_head row 2 column 3 is nan"),
        ("model.embed_tokens.weight", r"not finite in tensor model\.embed_tokens\.weight"),
    ],
)
def test_nan_is_named_by_weight_and_tensor(tiny: Tiny, tmp_path: Path, tensor: str, named: str) -> None:
    source = tiny("phi4")
    with opened(source) as (checkpoint, _):
        values = torch.tensor(checkpoint.read(tensor).astype(np.float32)).to(torch.bfloat16)
    values[(2, 3) if values.dim() == 2 else 2] = float("nan")
    directory = altered(source, tmp_path / "c", tensors={tensor: values})
    with opened(directory) as (checkpoint, decoder), pytest.raises(CheckpointError, match=named):
        backward(checkpoint, decoder, np.array([[1, 2, 3]]), Observer())
