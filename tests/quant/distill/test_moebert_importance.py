"""MoEBERT: importance in one backward a batch against one backward a sample, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quant.distill.models import Batch, Examples, layers_of
from quant.distill.moebert_importance import importance, mlp_ends, sample_importance, sample_losses
from tests.quant.distill.moebert_support import KINDS, Tiny, batch_of, wide_model


@pytest.fixture
def model(kind: Any, tiny: Tiny, tmp_path: Path) -> Any:
    return wide_model(kind, tiny, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_is_that_of_every_sample_alone(kind: Any, model: Any) -> None:
    """Equation 4 by its letters: one backward a sample, inner products of weights and their gradients."""
    torch.manual_seed(0)
    batch = batch_of(kind)
    for layer in layers_of(model):
        for end in mlp_ends(layer, kind):
            if end.bias is not None:
                torch.nn.init.normal_(end.bias)  # which a bias in the sum would be seen by
    expected = np.zeros((len(layers_of(model)), 3, mlp_ends(layers_of(model)[0], kind)[1].in_features))
    for i in range(3):
        one = Batch(
            batch.ids[i : i + 1],
            batch.mask[i : i + 1],
            None if kind == "decoder" else batch.labels[i : i + 1],
        )
        model.requires_grad_(True).zero_grad()
        logits = model(input_ids=one.ids, attention_mask=one.mask.long()).logits
        sample_losses(logits, one).sum().backward()
        for n, layer in enumerate(layers_of(model)):
            first, second = mlp_ends(layer, kind)
            rows = (first.weight * first.weight.grad).sum(1).reshape(-1, second.in_features).sum(0)
            columns = (second.weight * second.weight.grad).sum(0)
            expected[n, i] = (rows + columns).abs().detach().numpy()
    model.requires_grad_(False)
    model.zero_grad()
    found = sample_importance(model, kind, batch)
    # Two orders of summation in float64.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert all(p.grad is None for p in model.parameters())
    assert found.max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_importance_of_a_text_is_the_sum_however_it_is_batched(kind: Any, model: Any) -> None:
    batch = batch_of(kind, size=5)
    labels = None if batch.labels is None else batch.labels.numpy()
    examples = Examples(batch.ids.numpy(), batch.mask.numpy(), labels)
    alone = importance(model, kind, examples, batch=1)
    np.testing.assert_allclose(importance(model, kind, examples, batch=3), alone, rtol=1e-9, atol=1e-14)
    assert not np.allclose(importance(model, kind, examples, batch=3, most=2), alone)
