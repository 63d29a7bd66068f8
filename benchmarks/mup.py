"""Where the best learning rate lies at three widths, with and without `--mup`: `python -m benchmarks.mup`.

Tiny decoders learn bytes from scratch (benchmarks/tiny_training.py), each with every rate of a sweep, once with one
rate for all weights and once with the rates of `edge distill --mup`, found at the narrowest width. The weights at the
start are muP's both times, so that the learning rates alone differ. About five minutes on one core; a run that diverges
counts as infinite.
"""

from __future__ import annotations

import math
import time

from benchmarks.tiny_training import decoder, learn
from converters.errors import TrainingError
from edge.cli.console import table
from quant.distill.optimizers.groups import Optimizing, make_optimizer

WIDTHS, STEPS = (32, 96, 256), 80
RATES = tuple(1e-3 * 2**k for k in range(1, 8))
Sweep = dict[float, float]


def loss(width: int, rate: float, base: int) -> float:
    """After STEPS at that peak rate; base: width of --mup, 0 without."""
    model = decoder(width)
    try:
        return learn(model, make_optimizer(model, model, Optimizing(rate, base_width=base)), STEPS)
    except TrainingError:
        return math.inf


def rows(sweeps: dict[int, Sweep]) -> list[list[str]]:
    """A row a width: the loss at each rate, the best one marked; what the narrowest one's best rate costs here."""
    narrowest = sweeps[WIDTHS[0]]
    carried = min(narrowest, key=narrowest.__getitem__)
    found = []
    for width, sweep in sweeps.items():
        best = min(sweep, key=sweep.__getitem__)
        cells = [f"{value:.3f}{'*' if rate == best else ''}" for rate, value in sweep.items()]
        found.append([str(width), *cells, f"{sweep[carried] - sweep[best]:.3f}"])
    return found


def main() -> None:
    began = time.monotonic()
    narrowest = {rate: loss(WIDTHS[0], rate, 0) for rate in RATES}
    for name, base in (("one rate for all weights", 0), (f"--mup {WIDTHS[0]}", WIDTHS[0])):
        wider = {width: {rate: loss(width, rate, base) for rate in RATES} for width in WIDTHS[1:]}
        print(
            f"{name}: nats a byte after {STEPS} steps; * the best; lost with the best rate of width {WIDTHS[0]}"
        )
        header = ["width", *(f"{rate:.0e}" if rate < 1e-3 else f"{rate:.3f}" for rate in RATES), "lost"]
        print("\n".join(table(header, rows({WIDTHS[0]: narrowest, **wider}))), end="\n\n", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
