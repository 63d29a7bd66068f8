"""Phi-3.5-MoE: the reference evaluator against transformers' PhimoeForCausalLM, down to who is routed where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PhimoeForCausalLM
from transformers.models.phimoe.modeling_phimoe import sparsemixer as theirs

from benchmarks.moe_shapes import MOE_SHAPES, tensor_shapes
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Experts
from converters.forward import Floats
from converters.models import describe
from converters.reference import hidden_states, logits
from converters.routing import sparsemixer
from tests.converters.moe_support import TINY, oracle

Tiny = Callable[..., Path]
CLOSE = 5e-5
"""Logits of order 1 in float32, products in another order: 4e-6 measured. A wrong weight of an expert is
1e-2 and more."""


def ours(directory: Path, ids: Sequence[int]) -> Floats:
    with Checkpoint.open(directory) as checkpoint:
        return logits(checkpoint, describe(checkpoint), ids)


def tokens(count: int, vocabulary: int = 640) -> list[int]:
    return [int(i) for i in np.random.default_rng(1).integers(5, vocabulary, count)]


def read(directory: Path) -> Decoder:
    with Checkpoint.open(directory) as checkpoint:
        return describe(checkpoint)


@pytest.mark.parametrize("name", TINY)
def test_equals_transformers_on_every_shape(tiny: Tiny, name: str) -> None:
    ids = tokens(60, MOE_SHAPES[name]["vocab_size"])
    np.testing.assert_allclose(ours(tiny(name), ids), oracle(tiny(name), ids), atol=CLOSE)


@pytest.mark.parametrize("count", [40, 64, 65, 90])
def test_both_attention_factors_hold_at_their_lengths(tiny: Tiny, count: int) -> None:
    rope = MOE_SHAPES["phi3.5-moe"]["rope_scaling"] | {"original_max_position_embeddings": 64}
    directory = tiny("phi3.5-moe", rope_scaling=rope, original_max_position_embeddings=64)
    ids = tokens(count)
    np.testing.assert_allclose(ours(directory, ids), oracle(directory, ids, trained_factors=True), atol=CLOSE)


def test_a_checkpoint_saved_by_transformers_is_the_same_model(tiny: Tiny, tmp_path: Path) -> None:
    PhimoeForCausalLM.from_pretrained(tiny("phi3.5-moe"), dtype=torch.float32).save_pretrained(tmp_path)
    saved, original = read(tmp_path), read(tiny("phi3.5-moe"))
    assert saved.rope == original.rope
    np.testing.assert_array_equal(ours(tmp_path, tokens(20)), ours(tiny("phi3.5-moe"), tokens(20)))


@pytest.mark.parametrize("spread", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("shift", [0.0, 10.0, -10.0])
@pytest.mark.parametrize("experts", [2, 5, 16])
def test_routing_equals_the_original_near_ties(spread: float, shift: float, experts: int) -> None:
    """Scores that differ by 1e-4 around 10 are all ties; around 0 it is their signs that decide."""
    rng = np.random.default_rng(experts)
    scores = (spread * rng.standard_normal((400, experts)) + shift).astype(np.float32)
    # Some rows tie exactly, the whole row in one.
    scores[::5, 1], scores[7] = scores[::5, 0], 0
    wanted, wanted_chosen = theirs(torch.from_numpy(scores.copy()), 0.01, training=False)
    chosen, shares = sparsemixer(scores, 0.02)
    np.testing.assert_array_equal(chosen, wanted_chosen.numpy())
    np.testing.assert_allclose(shares, wanted.numpy(), atol=1e-6)


def test_only_chosen_experts_are_read(tiny: Tiny) -> None:
    """A single token has two experts a layer: of the others not a row is read."""
    with Checkpoint.open(tiny("phi3.5-moe")) as checkpoint:
        decoder = describe(checkpoint)
        logits(checkpoint, decoder, [9])
        unread = set(checkpoint.unread())
    for layer in decoder.layers:
        assert isinstance(layer.mlp, Experts)
        read = [e for e in layer.mlp.experts if e.gate.parts[0].tensor not in unread]
        assert len(read) == 2


def test_many_windows_give_what_one_sequence_gives(tiny: Tiny) -> None:
    """Experts are computed for all windows together; nothing of one may reach another."""
    windows = np.array([tokens(30), tokens(60)[30:]])
    with Checkpoint.open(tiny("moe-8")) as checkpoint:
        decoder = describe(checkpoint)
        both = hidden_states(checkpoint, decoder, windows)
        for window, hidden in zip(windows, both, strict=True):
            alone = hidden_states(checkpoint, decoder, window[None])[0]
            np.testing.assert_allclose(hidden, alone, atol=1e-5)


def test_parameters_are_those_of_the_real_model(tiny: Tiny) -> None:
    """41.87 billion, of which 6.6 are active (the model card): counted from the shapes alone."""
    assert sum(prod(shape) for _, shape in tensor_shapes(MOE_SHAPES["phi3.5-moe-full"])) == 41_873_153_344
    shapes = dict(tensor_shapes(MOE_SHAPES["phi3.5-moe"]))
    assert read(tiny("phi3.5-moe")).parameters == sum(map(prod, shapes.values()))
