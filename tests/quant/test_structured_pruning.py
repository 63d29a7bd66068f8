"""Whole units: the smaller model computes what the silenced one does, and units can come back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from quant.prune.phi3 import prunable
from quant.prune.settings import Sizes
from quant.prune.slicing import silence, sliced, sliced_config
from quant.prune.units import DOWN, LAYER, OUT, choose, head_dim, layer_scores, sizes_of


def small(**changes: object) -> Phi3ForCausalLM:
    torch.manual_seed(0)
    config = {
        "vocab_size": 64,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        "sliding_window": None,
    }
    return Phi3ForCausalLM(Phi3Config(**config | changes)).eval()


TARGETS = {
    "neurons": Sizes(3, 3, 2, 17),
    "groups": Sizes(3, 1, 2, 40),
    "heads within groups": Sizes(3, 3, 1, 40),
    "layers": Sizes(1, 3, 2, 40),
    "all": Sizes(2, 2, 1, 9),
    "nothing": Sizes(3, 3, 2, 40),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("tied", [False, True])
def test_the_smaller_model_computes_what_the_silenced_one_does(target: Sizes, tied: bool) -> None:
    model = small(tie_word_embeddings=tied)
    sizes, dim = sizes_of(model.config), head_dim(model.config)
    generator = torch.Generator().manual_seed(1)
    scores = {n: torch.rand(p.shape, generator=generator) for n, p in prunable(model).items()}
    kept = choose(scores, sizes, target, dim)
    tensors = sliced(model.state_dict(), kept, sizes, dim)
    config = Phi3Config(**sliced_config(model.config.to_dict(), target, dim))
    smaller = Phi3ForCausalLM(config).eval()
    smaller.load_state_dict(tensors)
    assert sizes_of(smaller.config) == target
    silence(model, kept, sizes, dim)
    ids = torch.randint(64, (2, 20), generator=generator)
    with torch.no_grad():
        # Zeros add nothing; only the order in which a product sums differs.
        torch.testing.assert_close(smaller(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_units_score_is_the_mean_of_its_weights() -> None:
    """Scores that are one constant in the weights of a unit: each unit gets back its own."""
    sizes, dim, hidden = Sizes(1, 3, 2, 5), 4, 24
    heads = torch.arange(1.0, 7).repeat_interleave(dim)
    groups = torch.tensor([10.0, 20, 30]).repeat_interleave(dim)
    neurons = torch.arange(1.0, 6)
    scores = {
        "self_attn.qkv_proj.weight": torch.cat([heads, groups, groups])[:, None].expand(-1, hidden),
        "self_attn.o_proj.weight": heads.expand(hidden, -1),
        "mlp.gate_up_proj.weight": torch.cat([neurons, neurons])[:, None].expand(-1, hidden),
        "mlp.down_proj.weight": neurons.expand(hidden, -1),
    }
    found = layer_scores({LAYER.format(0) + n: s for n, s in scores.items()}, 0, sizes, dim)
    assert torch.equal(found.heads, torch.arange(1.0, 7).reshape(3, 2))
    assert torch.equal(found.neurons, neurons)
    # A group of two heads: q and o of both, and k and v, six parts of one size.
    expected = torch.tensor([(2 * (1 + 2) + 20) / 6, (2 * (3 + 4) + 40) / 6, (2 * (5 + 6) + 60) / 6])
    torch.testing.assert_close(found.groups, expected)
    every = torch.cat([s.reshape(-1) for s in scores.values()])
    assert found.layer == pytest.approx(float(every.mean()), rel=1e-6)


def test_ties_keep_exact_numbers() -> None:
    model = small()
    sizes = sizes_of(model.config)
    scores = {n: torch.zeros(p.shape) for n, p in prunable(model).items()}
    kept = choose(scores, sizes, Sizes(2, 2, 1, 7), 8)
    assert sorted(kept.layers) == [0, 1]
    for units in kept.layers.values():
        assert (units.groups, units.heads, units.neurons) == ((0, 1), ((0,), (0,)), tuple(range(7)))


def test_a_silenced_unit_still_has_gradients_and_one_all_zero_has_none() -> None:
    """Why only the columns that write are set to zero: a unit of zeros alone is dead for good."""
    model = small()
    sizes, dim = sizes_of(model.config), head_dim(model.config)
    scores = {n: torch.rand(p.shape) for n, p in prunable(model).items()}
    kept = choose(scores, sizes, Sizes(2, 2, 1, 9), dim)
    silence(model, kept, sizes, dim)
    ids = torch.randint(64, (2, 20))
    model(input_ids=ids, labels=ids).loss.backward()
    parameters = prunable(model)
    for i in range(3):
        for name in (OUT, DOWN):
            matrix = parameters[LAYER.format(i) + name]
            silent = (matrix == 0).all(0)
            assert silent.any()
            assert matrix.grad is not None
            assert (matrix.grad[:, silent] != 0).any(0).all()
    down, gate_up = (parameters[LAYER.format(0) + n] for n in (DOWN, "mlp.gate_up_proj.weight"))
    model.zero_grad()
    with torch.no_grad():
        down[:, 3] = 0
        gate_up[[3, 43]] = 0
    model(input_ids=ids, labels=ids).loss.backward()
    assert down.grad is not None
    assert gate_up.grad is not None
    assert (down.grad[:, 3] == 0).all()
    assert (gate_up.grad[[3, 43]] == 0).all()


def test_sizes_fall_to_the_target_exactly() -> None:
    sizes, target = Sizes(4, 3, 2, 100), Sizes(2, 1, 1, 33)
    assert sizes.toward(target, 0.0) == sizes
    assert sizes.toward(target, 1.0) == target
    steps = [sizes.toward(target, k / 50).values() for k in range(51)]
    for first, second in pairwise(steps):
        assert all(a >= b for a, b in zip(first, second, strict=True))
