"""Activations of 16 bits: every value of a graph whose range is known is rounded to its own grid of 65536 steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.layout import Layout

LAST = 65535
Range = tuple[float, float]
"""Least and largest value."""


def grid(least: float, largest: float) -> tuple[np.float32, np.uint16]:
    """Scale and zero point of a grid that holds the range, and zero exactly."""
    low, high = min(least, 0.0), max(largest, 0.0)
    scale = np.float32((high - low) / LAST) or np.float32(1)
    return scale, np.uint16(np.clip(np.rint(-low / scale), 0, LAST))


class RoundedGraph(Graph):
    """Hands out, for a value in `ranges`, the value rounded to its grid: QuantizeLinear and DequantizeLinear behind
    it, which the NPU's compiler takes together with what is before and after them."""

    def __init__(self, layout: Layout, ranges: Mapping[str, Range], *, opset: int, ir_version: int) -> None:
        super().__init__(layout, opset=opset, ir_version=ir_version)
        self._ranges = ranges

    def node(
        self,
        op: str,
        inputs: list[str],
        outputs: list[str] | str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        value = super().node(op, inputs, outputs, domain=domain, **attributes)
        if value not in self._ranges:
            return value
        scale, zero = grid(*self._ranges[value])
        step = [
            self.constant(f"{value}.scale", np.asarray(scale)),
            self.constant(f"{value}.zero", np.asarray(zero)),
        ]
        codes = super().node("QuantizeLinear", [value, *step], f"{value}.u16")
        return super().node(
            "DequantizeLinear", [codes, *step], f"{value}.rounded", output_dtype=TensorProto.FLOAT16
        )
