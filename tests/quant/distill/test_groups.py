"""Which weights muP's rates and COSMOS take, and that a step at every width moves activations by as much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Phi3Config, Phi3ForCausalLM

from quant.distill.optimizers.groups import Name, Optimizing, make_optimizer, output_layers


def decoder(width: int, *, tied: bool = False) -> Any:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=50, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_attention_heads=width // 16, num_key_value_heads=width // 16, tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    # muP's weights at the start, which a teacher's obey: logits and activations of one size at every width.
    for name, p in model.named_parameters():
        if p.ndim == 2 and "embed" not in name and "lm_head" not in name:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
    torch.nn.init.normal_(model.lm_head.weight, std=0.6 / width)
    return model


def rates(model: Any, **options: Any) -> dict[str, float]:
    optimizer = make_optimizer(model, model, Optimizing(1.0, **options))
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("tied", [False, True])
def test_matrices_and_the_output_are_scaled_and_nothing_else(tied: bool) -> None:
    found = rates(decoder(64, tied=tied), base_width=16)
    assert set(found) == {name for name, _ in decoder(64, tied=tied).named_parameters()}
    for name, rate in found.items():
        constant = "norm" in name or ("embed" in name and not tied)
        assert rate == (1.0 if constant else 0.25), name
    assert set(rates(decoder(64, tied=tied)).values()) == {1.0}
    assert set(rates(decoder(64, tied=tied), base_width=64).values()) == {1.0}


def test_of_an_encoder_embeddings_and_vectors_stay() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    model = BertForSequenceClassification(config)
    found = rates(model, base_width=8)
    assert {name for name, rate in found.items() if rate == 1.0} == {
        name for name, p in model.named_parameters() if p.ndim == 1 or "embeddings" in name
    }
    assert output_layers(model) == [model.classifier]
    assert found["classifier.weight"] == found["bert.pooler.dense.weight"] == 0.25


def test_cosmos_takes_the_matrices_and_adamw_the_rest() -> None:
    model = decoder(64)
    optimizer = make_optimizer(model, model, Optimizing(1.0, "cosmos"))
    matrices, rest = optimizer.param_groups
    assert matrices["rank"] == 8
    assert (matrices["lr"], rest["lr"]) == (0.25, 1.0)
    assert len(matrices["params"]) == 2 * 4
    assert {id(p) for p in rest["params"]} >= {id(model.lm_head.weight), id(model.model.embed_tokens.weight)}


def test_only_what_is_trained_is_stepped() -> None:
    model = decoder(32)
    model.model.layers[0].requires_grad_(requires_grad=False)
    names: tuple[Name, ...] = ("adamw", "cosmos")
    for name in names:
        groups = make_optimizer(model, model, Optimizing(1.0, name)).param_groups
        assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())


def moved(width: int, base: int, *, tied: bool = False, steps: int = 4) -> dict[str, float]:
    """How far (root mean square) layers' outputs and logits are after some steps from where they were."""
    model = decoder(width, tied=tied)
    optimizer = make_optimizer(model, model, Optimizing(3e-3, base_width=base))
    ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(1))
    held: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, out: held.append(out)) for layer in model.model.layers]
    found = []
    for _ in range(steps + 1):
        held.clear()
        out = model(input_ids=ids, labels=ids, use_cache=False)
        found.append([*(h.detach() for h in held), out.logits.detach()])
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    for hook in hooks:
        hook.remove()
    return {
        name: float((last - first).square().mean().sqrt())
        for name, first, last in zip(("layer 0", "layer 1", "logits"), found[0], found[-1], strict=True)
    }


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_moves_activations_as_far_at_every_width(tied: bool) -> None:
    """muP's coordinate check: 8 times the width."""
    narrow = moved(32, 32, tied=tied)
    scaled, plain = moved(256, 32, tied=tied), moved(256, 0, tied=tied)
    for name, before in narrow.items():
        assert 0.5 < scaled[name] / before < 2, name
    # The reason for the rule: without it the logits move with the width.
    assert plain["logits"] / narrow["logits"] > 3
