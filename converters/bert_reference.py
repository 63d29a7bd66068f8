"""The independent float32 evaluator of a RoutedBert: what its graph is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.bert_moebert import RoutedBert, RoutedLayer
from converters.encoder_forward import attend, layer_norm, linear, mlp
from converters.forward import Floats
from converters.reference import Streamed, Transform
from converters.rewriting import RowSource

Ids = NDArray[np.int64]


def bert_logits(
    checkpoint: RowSource,
    model: RoutedBert,
    ids: Ids,
    mask: Ids,
    types: Ids,
    *,
    transform: Transform | None = None,
) -> Floats:
    """float32 [batch, classes] for ids, attention mask (0 for padding) and token types, all [batch, length].

    `transform` as in `converters.reference.logits`.
    """
    weights = Streamed(checkpoint, transform)
    hidden = weights.gather(model.words, ids.ravel()) + weights.gather(model.types, types.ravel())
    hidden = hidden.reshape(*ids.shape, -1) + weights.gather(model.positions, np.arange(ids.shape[1]))
    hidden = layer_norm(weights, model.norm, hidden, model.norm_eps)
    for layer in model.layers:
        hidden = hidden + attend(weights, layer.attention, hidden, model.heads, visible=mask != 0)
        hidden = layer_norm(weights, layer.attention.norm, hidden, model.norm_eps)
        hidden = _routed(weights, layer, hidden, ids, model.norm_eps)
    pooled: Floats = np.tanh(linear(weights, model.pooler, hidden[:, 0]))
    return linear(weights, model.classifier, pooled)


def _routed(weights: Streamed, layer: RoutedLayer, hidden: Floats, ids: Ids, epsilon: float) -> Floats:
    route = weights.whole(layer.table)[ids].astype(np.int64)
    outputs = np.empty_like(hidden)
    for number in np.unique(route).tolist():
        own, expert = route == number, layer.experts[number]
        tokens = hidden[own]
        mixed = mlp(weights, expert.mlp, tokens, "gelu")
        outputs[own] = layer_norm(weights, expert.norm, tokens + mixed, epsilon)
    return outputs
