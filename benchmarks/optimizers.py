"""COSMOS beside AdamW: state kept, loss reached, time taken: `python -m benchmarks.optimizers`.

A tiny decoder learns bytes from scratch (benchmarks/tiny_training.py) with each optimizer at several rates, as
`edge distill --optimizer` makes them; the state is counted in the optimizer itself. Below it the state that true models
would need, by the same count of their matrices' sizes. About two minutes on one core.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from benchmarks.tiny_training import decoder, learn
from converters.errors import TrainingError
from edge.cli.console import size, table
from quant.distill.optimizers.cosmos import kept
from quant.distill.optimizers.groups import RANK, RANK_SHARE, Name, Optimizing, make_optimizer

WIDTH, STEPS = 128, 120
RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
OPTIMIZERS: tuple[Name, ...] = ("adamw", "cosmos")
# Width, MLP, query and key-value channels, layers, vocabulary; output and embeddings are one matrix in both.
MODELS = {
    "the embedded default": (576, 1536, 576, 192, 30, 49152),
    "Phi-4-mini": (3072, 8192, 3072, 1024, 32, 200064),
}


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Of all tensors that it keeps beside weights and gradients."""
    kept_now = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.untyped_storage().nbytes() for value in kept_now if isinstance(value, torch.Tensor))


def measured(name: Name) -> list[str]:
    model: Any = decoder(WIDTH)
    weights = sum(p.numel() for p in model.parameters())
    losses, seconds, state = [], [], 0
    for rate in RATES:
        model = decoder(WIDTH)
        optimizer = make_optimizer(model, model, Optimizing(rate, name))
        began = time.monotonic()
        try:
            losses.append(learn(model, optimizer, STEPS))
        except TrainingError:
            losses.append(math.inf)
        seconds.append(time.monotonic() - began)
        state = state_bytes(optimizer)
    best = min(losses)
    cells = [f"{loss:.3f}{'*' if loss == best else ''}" for loss in losses]
    return [name, f"{state / (4 * weights):.2f}", *cells, f"{1000 * min(seconds) / STEPS:.0f}"]


def computed(width: int, mlp: int, queries: int, groups: int, layers: int, words: int) -> dict[Name, int]:
    """Bytes in float32: each matrix's state, and two moments of embeddings and norms."""
    shapes = [(queries + 2 * groups, width), (width, queries), (2 * mlp, width), (width, mlp)]
    rest = words * width + (2 * layers + 1) * width
    rank = min(RANK, width // RANK_SHARE)
    lean = sum(kept(rows, columns, rank) for rows, columns in shapes)
    whole = 2 * sum(rows * columns for rows, columns in shapes)
    return {"adamw": 4 * (layers * whole + 2 * rest), "cosmos": 4 * (layers * lean + 2 * rest)}


def main() -> None:
    print(f"width {WIDTH}: state in weights' size; nats a byte after {STEPS} steps at each rate, * the best")
    header = ["optimizer", "state", *(str(rate) for rate in RATES), "ms a step"]
    print("\n".join(table(header, [measured(name) for name in OPTIMIZERS])), end="\n\n")
    print("state by the formula, float32")
    rows = [
        [model, *(size(computed(*sizes)[name]) for name in OPTIMIZERS)] for model, sizes in MODELS.items()
    ]
    print("\n".join(table(["model", *OPTIMIZERS], rows)))


if __name__ == "__main__":
    main()
