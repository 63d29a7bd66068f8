"""What a calibration takes, told before it begins: from the model's sizes and this machine's speed at a product."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.decoder import Decoder, Weight
from edge.calibration_text import CalibrationText
from quant.calibrate import Settings

# Share of a plain product's speed that the whole walk reaches: 0.3 to 0.5 on two cores (benchmarks/calibrate.py).
EFFICIENCY = 0.4
LIBRARIES = 48 << 20
"""Tokenizer, chat templates and the BLAS's buffers: without them `python -m benchmarks.calibrate` measured 22 MiB more
than was stated."""


@dataclass(frozen=True)
class CalibrationPlan:
    """The text, how many recipes are calibrated on it, and what that takes."""

    text: CalibrationText
    runs: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    spill: bool

    def to_data(self) -> dict[str, Any]:
        return {
            **self.text.to_data(),
            "runs": self.runs,
            "seconds": round(self.seconds),
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "spill": self.spill,
        }


def plan_calibration(text: CalibrationText, decoder: Decoder, runs: int, *, spill: bool) -> CalibrationPlan:
    """Time from a product measured now, memory and disk from the shapes. `runs` calibrations, one after another."""
    count, length = text.windows.shape
    streams = 4 * count * length * 2 * (decoder.hidden_size + _mixed(decoder))
    codes = (
        runs * sum(_size(w) for layer in decoder.layers for w in layer.weights() if w.is_matrix) * 18 // 32
    )
    return CalibrationPlan(
        text=text,
        runs=runs,
        seconds=runs * operations(decoder, count, length, Settings()) / (EFFICIENCY * _speed()),
        memory_bytes=_working_memory(decoder, length) + (0 if spill else streams),
        # The streams are kept once more for going on after a kill.
        disk_bytes=codes + streams * (2 if spill else 1),
        spill=spill,
    )


def operations(decoder: Decoder, windows: int, length: int, settings: Settings) -> float:
    """Additions and multiplications of `quant.calibrate` on so many windows."""
    hidden, mixed, inner = decoder.hidden_size, _mixed(decoder), decoder.intermediate_size
    layer = decoder.layers[0]
    attention = sum(_size(w) for w in (layer.q, layer.k, layer.v, layer.o))
    gate_up, down = _size(layer.dense.gate) + _size(layer.dense.up), _size(layer.dense.down)
    # Two streams; gate and up are made once more for the coded one.
    forward = 2 * (2 * attention + 3 * gate_up + 2 * down) + 2 * 4 * length * mixed
    moments = sum(3 * n * n for n in (hidden, mixed, hidden, inner)) + 2 * hidden * (mixed + inner)
    coding = 0.0
    for weights in (
        (layer.q, layer.k, layer.v),
        (layer.o,),
        (layer.dense.gate, layer.dense.up),
        (layer.dense.down,),
    ):
        rows, n = sum(w.rows for w in weights), weights[0].shape[1]
        passes = settings.gptq.passes
        coding += rows * n * n * (5 + 4 * passes) + 3 * n**3 + 1.2e3 * (1 + passes) * rows * n
    return len(decoder.layers) * (windows * length * (forward + moments) + coding)


def _working_memory(decoder: Decoder, length: int) -> int:
    """One layer's weights twice, its widest activations, the largest Hessian with its factors, and the libraries."""
    layer = max(sum(_size(w) for w in layer.weights() if w.is_matrix) for layer in decoder.layers)
    widest = max(decoder.intermediate_size, _mixed(decoder), decoder.hidden_size)
    return 4 * 2 * layer + 4 * length * 6 * widest + 40 * widest * widest + LIBRARIES


def _mixed(decoder: Decoder) -> int:
    return decoder.attention.heads * decoder.attention.head_dim


def _size(weight: Weight) -> int:
    return weight.rows * weight.shape[1]


def _speed() -> float:
    """Operations a second of a float32 product, the best of three."""
    a = np.ones((512, 1024), np.float32)
    b = np.ones((1024, 1024), np.float32)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 512 * 1024 * 1024 / best
