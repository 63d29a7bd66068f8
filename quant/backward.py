"""The gradient of a loss at the logits, through a whole Decoder, in bounded memory and without torch.

Forward, every layer's input is kept (in memory, or on disk through a store); backward, the layers are walked from
the last to the first, each one's weights read once more, its forward recomputed and derived a window at a time
(`quant.layer_gradient`). lm_head goes by in chunks of rows, twice: once for the normalisation, once for the
gradient. In memory at once: one layer in float32, the windows' residual stream twice, one window's activations.

The loss of a window is the sum of -log p(label) over its scored positions. Labels drawn from the model itself
(the default) make its gradients a sample of the score, whose covariance is the Fisher information: the Hessian
of the KL divergence between the model and a model nearby (Amari 1998; Kunstner et al., arXiv 1905.12558, on why
the labels must be drawn and not taken from the text).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.forward import Floats, rms_norm, rope_table, run_layer
from converters.plain import require_plain
from converters.reference import Resident, Streamed, check_finite
from quant.activation_store import InMemory, Store
from quant.finite import check_weight
from quant.layer_gradient import Observer, layer_backward, rms_norm_backward

__all__ = ["BackwardPass", "Observer", "backward"]

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class BackwardPass:
    """labels: int64 [windows, scored]. loss: the mean of -log p(label), nats a scored position."""

    labels: Tokens
    loss: float


def backward(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: Tokens,
    observer: Observer,
    *,
    scored: slice = slice(None),
    labels: Tokens | None = None,
    seed: int = 0,
    store: Store | None = None,
    advance: Callable[[int], None] | None = None,
) -> BackwardPass:
    """Show `observer` every activation and gradient of the windows [n, length], each a sequence from position 0.

    scored: the positions whose predictions count. labels: token ids [n, scored], or None to draw each from the
    model's own prediction with `seed`. store: where layer inputs stay (default: in memory). `advance` is told 1 for
    each layer and direction. Raises CheckpointError naming the weight, or the layer, of a value that is not
    finite, and ValueError for tokens outside the vocabulary.
    """
    require_plain(decoder, "the backward pass", "name a --precision or a --recipe instead of a budget")
    if windows.size == 0 or windows.min() < 0 or windows.max() >= decoder.vocab_size:
        raise ValueError(f"windows must hold tokens in 0..{decoder.vocab_size - 1}")
    store = InMemory() if store is None else store
    tell = advance or (lambda _: None)
    streamed = Streamed(checkpoint)
    cos, sin = rope_table(decoder.rope, windows.shape[1])
    hidden = streamed.gather(decoder.embedding, windows.reshape(-1)).reshape(*windows.shape, -1)
    check_finite(hidden, f"in tensor {decoder.embedding.parts[0].tensor}")
    for index, layer in enumerate(decoder.layers):
        store.put(index, hidden)
        weights = Resident(streamed, layer)
        for weight in layer.weights():
            check_weight(weight, weights.matrix(weight))
        for sequence in hidden:
            run_layer(weights, layer, decoder, sequence, cos, sin)
        check_finite(hidden, f"after layer {index}")
        tell(1)
    found, gradients = _head(streamed, decoder, hidden, observer, scored, labels, seed)
    for index, layer in reversed(list(enumerate(decoder.layers))):
        hidden = store.get(index)
        weights = Resident(streamed, layer)
        observer.on_layer(layer, weights)
        for sequence, gradient in zip(hidden, gradients, strict=True):
            gradient[:] = layer_backward(weights, layer, decoder, sequence, gradient, cos, sin, observer)
        tell(1)
    for tokens, gradient in zip(windows, gradients, strict=True):
        observer.on_embedding(tokens, gradient)
    return found


def _head(
    streamed: Streamed,
    decoder: Decoder,
    hidden: Floats,
    observer: Observer,
    scored: slice,
    labels: Tokens | None,
    seed: int,
) -> tuple[BackwardPass, Floats]:
    """Final norm and lm_head: what was found, and the gradients at the last layer's outputs, of hidden's shape."""
    gain = streamed.vector(decoder.final_norm)
    check_weight(decoder.final_norm, gain)
    inputs = np.stack([rms_norm(sequence[scored], gain, decoder.norm_eps) for sequence in hidden])
    normaliser = _log_sum_exp(streamed, decoder, inputs)
    count, positions, _ = inputs.shape
    drawn = np.random.default_rng(seed).random((count, positions))
    below, d_inputs = np.zeros(drawn.shape), np.zeros_like(inputs)
    found = np.zeros(drawn.shape, np.int64)
    for start, rows in streamed.chunks(decoder.lm_head):
        for w in range(count):
            probabilities = np.exp(inputs[w] @ rows.T - normaliser[w][:, None])
            observer.on_head(start, rows, inputs[w], probabilities)
            d_inputs[w] += probabilities @ rows
            # The label drawn is the first token with the cumulative probability above the uniform draw.
            reached = below[w][:, None] + np.cumsum(probabilities, axis=1, dtype=np.float64)
            found[w] += np.count_nonzero(reached <= drawn[w][:, None], axis=1)
            below[w] = reached[:, -1]
    labels = np.minimum(found, decoder.vocab_size - 1) if labels is None else labels
    wanted = streamed.gather(decoder.lm_head, labels.reshape(-1)).reshape(inputs.shape)
    loss = float(np.mean(normaliser - np.einsum("wph,wph->wp", inputs, wanted)))
    d_inputs -= wanted
    gradients = np.zeros_like(hidden)
    for w in range(count):
        d_hidden, d_gain = rms_norm_backward(hidden[w][scored], gain, decoder.norm_eps, d_inputs[w])
        gradients[w][scored] = d_hidden
        observer.on_gain(decoder.final_norm, d_gain)
    return BackwardPass(labels, loss), gradients


def _log_sum_exp(streamed: Streamed, decoder: Decoder, inputs: Floats) -> Floats:
    """The logarithm of each position's sum of exponentials over the vocabulary, [windows, scored]."""
    total = np.full(inputs.shape[:2], -np.inf, np.float32)
    for start, rows in streamed.chunks(decoder.lm_head):
        check_weight(decoder.lm_head, rows, start)
        for w, window in enumerate(inputs):
            logits = window @ rows.T
            peak = logits.max(axis=1)
            part = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
            total[w] = np.logaddexp(total[w], part)
    return total
