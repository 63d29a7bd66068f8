"""COSMOS beside AdamW: state kept, loss reached, time taken: `python -m benchmarks.optimizers`.

Tiny decoders learn bytes (benchmarks/tiny_training.py), from scratch and as half of a trained one's layers, with each
optimizer at several rates, as `edge distill --optimizer` makes them; the state is counted in the optimizer itself.
Below it the state that true models would need, by the formula. About three minutes on one core.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.tiny_training import decoder, learn
from converters.errors import TrainingError
from edge.cli.console import size, table
from quant.distill.optimizers.cosmos import kept
from quant.distill.optimizers.groups import RANK, RANK_SHARE, Name, Optimizing, make_optimizer

WIDTH, STEPS = 128, 120
RATES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
TEACHER_LAYERS, TEACHER_STEPS, TEACHER_RATE = 4, 400, 0.002
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


def measured(name: Name, begin: Callable[[], Any], skipped: int) -> list[str]:
    """A row of the table: what `begin` gives, trained by that optimizer at each rate."""
    losses, seconds, state = [], [], 0.0
    for rate in RATES:
        model = begin()
        optimizer = make_optimizer(model, model, Optimizing(rate, name))
        began = time.monotonic()
        try:
            losses.append(learn(model, optimizer, STEPS, skipped=skipped))
        except TrainingError:
            losses.append(math.inf)
        seconds.append(time.monotonic() - began)
        state = state_bytes(optimizer) / sum(4 * p.numel() for p in model.parameters())
    best = min(losses)
    cells = [f"{loss:.3f}{'*' if loss == best else ''}" for loss in losses]
    return [name, f"{state:.2f}", *cells, f"{1000 * min(seconds) / STEPS:.0f}"]


def student(teacher: Any) -> Any:
    """The teacher without its middle layers, as a student begins."""
    cut = copy.deepcopy(teacher)
    cut.model.layers = torch.nn.ModuleList([cut.model.layers[0], cut.model.layers[-1]])
    cut.model.layers[1].self_attn.layer_idx = 1
    cut.config.num_hidden_layers = 2
    return cut


def computed(width: int, mlp: int, queries: int, groups: int, layers: int, words: int) -> dict[Name, int]:
    """Bytes in float32: each matrix's state, and two moments of embeddings and norms."""
    shapes = [(queries + 2 * groups, width), (width, queries), (2 * mlp, width), (width, mlp)]
    rest = words * width + (2 * layers + 1) * width
    rank = min(RANK, width // RANK_SHARE)
    lean = sum(kept(rows, columns, rank) for rows, columns in shapes)
    whole = 2 * sum(rows * columns for rows, columns in shapes)
    return {"adamw": 4 * (layers * whole + 2 * rest), "cosmos": 4 * (layers * lean + 2 * rest)}


def main() -> None:
    teacher = decoder(WIDTH, TEACHER_LAYERS)
    learn(teacher, make_optimizer(teacher, teacher, Optimizing(TEACHER_RATE)), TEACHER_STEPS)
    header = ["optimizer", "state", *(str(rate) for rate in RATES), "ms a step"]
    begins: dict[str, Callable[[], Any]] = {
        "from scratch": lambda: decoder(WIDTH),
        f"2 of {TEACHER_LAYERS} layers of a trained decoder": lambda: student(teacher),
    }
    for title, begin in begins.items():
        print(f"{title}: state in weights' size; nats a byte after {STEPS} steps at each rate, * the best")
        rows = [measured(name, begin, TEACHER_STEPS) for name in OPTIMIZERS]
        print("\n".join(table(header, rows)), end="\n\n", flush=True)
    print("state by the formula, float32")
    sizes = [
        [model, *(size(computed(*shape)[name]) for name in OPTIMIZERS)] for model, shape in MODELS.items()
    ]
    print("\n".join(table(["model", *OPTIMIZERS], sizes)))


if __name__ == "__main__":
    main()
