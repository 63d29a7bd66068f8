"""How much each token's error in a linear layer's output costs, from one backward pass.

The KL divergence between a model and one whose linear layer is off by e_t at token t is, to second order,
1/2 E (sum_t g_t . e_t)^2 with g_t the gradient of -log p(label) at the layer's output, labels drawn from the model
(the Fisher information). Taking tokens and rows as independent, and all rows of a weight alike, token t's squared
error counts with w_t = the mean over rows of g_t^2. Tokens differ by orders of magnitude: whatever attends to
position 0 makes its keys and values count a hundred times the mean, and its queries not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from quant.activation_store import Store
from quant.backward import backward
from quant.layer_gradient import Observer

Floats = NDArray[np.float32]


def token_weights(
    checkpoint: Checkpoint,
    decoder: Decoder,
    windows: NDArray[np.int64],
    *,
    seed: int = 0,
    power: float = 1.0,
    store: Store | None = None,
    advance: Callable[[int], None] | None = None,
) -> Mapping[str, Floats]:
    """By weight name, what each token counts: float32 [windows, length], of mean 1.

    power: 1 is the theory's; less draws the tokens together, which a finite sample can need.
    """
    observer = _Squares(len(windows))
    backward(checkpoint, decoder, windows, observer, seed=seed, store=store, advance=advance)
    found = {}
    for name, rows in observer.squares.items():
        weights = np.stack(rows) ** np.float32(power)
        mean = weights.mean(dtype=np.float64)
        found[name] = (weights / mean if mean > 0 else np.ones_like(weights)).astype(np.float32)
    return found


class _Squares(Observer):
    """Mean squared gradients over rows, by weight, a window after the other."""

    def __init__(self, windows: int) -> None:
        self.windows = windows
        self.squares: dict[str, list[Floats]] = {}

    def on_linear(self, weight: Weight, inputs: Floats, gradients: Floats) -> None:
        rows = np.float32(gradients.shape[1])
        self.squares.setdefault(weight.name, []).append(np.einsum("tr,tr->t", gradients, gradients) / rows)
