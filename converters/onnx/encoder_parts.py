"""Parts that the graphs of vision and speech share, and the plan of an encoder's data file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from onnx import ValueInfoProto, helper

from converters.decoder import Weight
from converters.encoders import Activation, LayerNorm, Linear, Mlp, SelfAttention
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.layout import Layout, lay_out
from converters.onnx.parts import float32, matmul_nbits
from converters.onnx.tensors import Stored
from converters.writer import Storages

MASKED = -1e30
"""What is added to the score of a key that is not seen: float32 keeps it finite and its exponential 0."""


class Encoder(Protocol):
    """A `Vision` or a `Speech`."""

    def weights(self) -> Iterator[Weight]: ...


def plan_encoder(encoder: Encoder, recipe: Storages, file: str) -> Layout:
    """The data file of an encoder: its weights in forward order, each at a page of its own."""
    return lay_out(file, tuple(Stored(w.name, recipe.storage(w), (w,)) for w in encoder.weights()))


class EncoderGraph(Graph):
    """A graph of weights by their handles. Values are [sequences, length, channels] unless a name says otherwise."""

    def __init__(self, layout: Layout, accuracy_level: int) -> None:
        super().__init__(layout)
        self._stored = {weight.name: stored for stored in layout.stored for weight in stored.weights}
        self._accuracy_level = accuracy_level
        self._made = 0

    def stored(self, weight: Weight) -> Stored:
        return self._stored[weight.name]

    def weight(self, weight: Weight, *dims: int) -> str:
        """A weight that no block format holds, float32, of its own shape or of `dims`."""
        stored = self.stored(weight)
        name = self.external(stored.tensors[0], dims=dims or None)
        return float32(self, name, stored) if stored.storage != "f32" else name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output, whose name nobody needs."""
        self._made += 1
        return self.node(kind, list(inputs), f"{kind.lower()}.{self._made}", domain=domain, **attributes)

    def ints(self, *values: int) -> str:
        """A constant int64 [n]."""
        return self.constant("int." + "_".join(map(str, values)), values)

    def scalar(self, value: int) -> str:
        """A constant int64 without axes."""
        return self.constant(f"scalar.{value}", np.asarray(value, np.int64))

    def number(self, value: float) -> str:
        """A constant float32 without axes."""
        return self.constant(f"number.{value}", np.asarray(value, np.float32))

    def size(self, value: str, axis: int) -> str:
        """int64 [1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def range(self, stop: str) -> str:
        """0..stop-1, int64; `stop` an int64 [1]."""
        return self.op("Range", self.scalar(0), self.op("Squeeze", stop), self.scalar(1))

    def place(self, index: str, ends: str) -> str:
        """Which of the intervals that end before `ends` [n] (int64, cumulated) holds each `index` [m]: int64 [m]."""
        behind = self.op("GreaterOrEqual", self.op("Unsqueeze", index, self.ints(1)), ends)
        return self.op("ReduceSum", self.op("Cast", behind, to=7), self.ints(1), keepdims=0)

    def linear(self, layer: Linear, x: str) -> str:
        stored = self.stored(layer.weight)
        name = f"{layer.weight.name}.product"
        if layer.weight.zero_columns:
            x = self.op("Pad", x, self.ints(0, layer.weight.zero_columns), "", self.ints(-1))
        if stored.format is not None:
            product = matmul_nbits(self, stored, x, name, accuracy_level=self._accuracy_level)
        else:
            product = self.node(
                "FusedMatMul", [x, self.weight(layer.weight)], name, domain=MICROSOFT, transB=1
            )
        return self.op("Add", product, self.weight(layer.bias))

    def layer_norm(self, norm: LayerNorm, x: str, epsilon: float) -> str:
        return self.op(
            "LayerNormalization", x, self.weight(norm.gain), self.weight(norm.bias), axis=-1, epsilon=epsilon
        )

    def attention(self, layer: SelfAttention, x: str, heads: int, seen: str = "", bias: str = "") -> str:
        """Over normed x. `seen`: int32 [sequences, length], 0 for keys that are not seen. `bias`: added to the scores,
        [1, heads, length, length]."""
        q, k, v = (self.linear(part, x) for part in (layer.q, layer.k, layer.v))
        inputs = [q, k, v, "", seen, bias]
        while not inputs[-1]:
            inputs.pop()
        mixed = self.op(
            "MultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads, mask_filter_value=MASKED
        )
        return self.linear(layer.o, mixed)

    def activation(self, kind: Activation, x: str) -> str:
        if kind == "quick_gelu":
            return self.op("QuickGelu", x, domain=MICROSOFT, alpha=1.702)
        return self.op("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def mlp(self, layer: Mlp, x: str, kind: Activation) -> str:
        return self.linear(layer.down, self.activation(kind, self.linear(layer.up, x)))

    def swish(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))


def value(name: str, kind: int, *shape: int | str) -> ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)
