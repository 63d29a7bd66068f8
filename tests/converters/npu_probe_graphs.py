"""Graphs of one or two operators, each with what numpy makes of it, for tests/converters/npu_probe.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto as Type
from onnx import helper

TOKENS, COLUMNS, ROWS, BLOCK = 4, 128, 256, 32
STEP, ZERO = np.float32(8 / 65535), np.uint16(32768)
Feeds = dict[str, NDArray[Any]]
Built = tuple[onnx.ModelProto, Feeds, NDArray[Any] | None]


class Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def tensor(self, name: str, kind: int, values: NDArray[Any]) -> str:
        flat = values.ravel().tolist()
        self.constants[name] = helper.make_tensor(name, kind, values.shape, flat)
        return name

    def rounded(self, value: str, output: str) -> str:
        step = [
            self.tensor(f"{value}.s", Type.FLOAT, np.array(STEP)),
            self.tensor(f"{value}.z", Type.UINT16, np.array(ZERO)),
        ]
        codes = self.node("QuantizeLinear", [value, *step], f"{value}.q")
        return self.node("DequantizeLinear", [codes, *step], output, output_dtype=Type.FLOAT16)

    def model(
        self, inputs: dict[str, tuple[int, list[int]]], outputs: dict[str, tuple[int, list[int]]]
    ) -> onnx.ModelProto:
        ins, outs = (
            [helper.make_tensor_value_info(name, *what) for name, what in each.items()]
            for each in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "probe", ins, outs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def blocked(kind: str) -> Built:
    """u16 activations times DequantizeLinear of `kind` with a float scale a block of 32."""
    rng, build = np.random.default_rng(0), Builder()
    half = 8 if "4" in kind else 128
    codes = rng.integers(-half, half, (COLUMNS, ROWS))
    scales = (0.02 / half * rng.uniform(0.5, 1.5, (COLUMNS // BLOCK, ROWS))).astype(np.float32)
    shift = half if kind.startswith("u") else 0
    onnx_type = getattr(Type, kind.upper())
    x = build.rounded("x", "x.rounded")
    weight = build.node(
        "DequantizeLinear",
        [
            build.tensor("codes", onnx_type, codes + shift),
            build.tensor("scales", Type.FLOAT, scales),
            build.tensor("zeros", onnx_type, np.full(scales.shape, shift)),
        ],
        "weight",
        axis=0,
        block_size=BLOCK,
        output_dtype=Type.FLOAT16,
    )
    build.rounded(build.node("MatMul", [x, weight], "product"), "y")
    return _product(build, rng, codes * np.repeat(scales.astype(np.float64), BLOCK, axis=0))


def multiples(most: str) -> Built:
    """The same with int4 codes and block scales that are whole multiples, up to `most`, of a row's."""
    rng, build = np.random.default_rng(0), Builder()
    codes = rng.integers(-8, 8, (COLUMNS, ROWS))
    times = rng.integers(1, int(most) + 1, (COLUMNS // BLOCK, ROWS))
    scales = (0.02 / 8 / int(most) * rng.uniform(0.5, 1.5, ROWS)).astype(np.float32)
    x = build.rounded("x", "x.rounded")
    block_scales = build.node(
        "DequantizeLinear",
        [build.tensor("times", Type.UINT8, times), build.tensor("scales", Type.FLOAT, scales)],
        "block_scales",
        axis=1,
    )
    weight = build.node(
        "DequantizeLinear",
        [
            build.tensor("codes", Type.INT4, codes),
            block_scales,
            build.tensor("zeros", Type.INT4, np.zeros(times.shape, np.int64)),
        ],
        "weight",
        axis=0,
        block_size=BLOCK,
        output_dtype=Type.FLOAT16,
    )
    build.rounded(build.node("MatMul", [x, weight], "product"), "y")
    return _product(build, rng, codes * np.repeat(times * scales.astype(np.float64), BLOCK, axis=0))


def _product(build: Builder, rng: np.random.Generator, weight: NDArray[np.float64]) -> Built:
    x = rng.standard_normal((1, TOKENS, COLUMNS)).astype(np.float16)
    model = build.model({"x": (Type.FLOAT16, [1, TOKENS, COLUMNS])}, {"y": (Type.FLOAT16, [1, TOKENS, ROWS])})
    return model, {"x": x}, _rounded(_rounded(x.astype(np.float64)) @ weight)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    codes = np.clip(np.rint(values / STEP) + ZERO, 0, 65535)
    return (codes - float(ZERO)) * float(STEP)


def nbits(_: str) -> Built:
    """float16 activations times int4 MatMulNBits."""
    rng, build = np.random.default_rng(0), Builder()
    codes = rng.integers(0, 16, (ROWS, COLUMNS // BLOCK, BLOCK), dtype=np.uint8)
    scales = rng.uniform(0.001, 0.003, (ROWS, COLUMNS // BLOCK)).astype(np.float16)
    packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
    names = [build.tensor("codes", Type.UINT8, packed), build.tensor("scales", Type.FLOAT16, scales)]
    shape = {"K": COLUMNS, "N": ROWS, "bits": 4, "block_size": BLOCK}
    build.node("MatMulNBits", ["x", *names], "y", domain="com.microsoft", **shape)
    values = (codes.astype(np.float64) - 8) * scales.astype(np.float64)[..., None]
    x = rng.standard_normal((1, TOKENS, COLUMNS)).astype(np.float16)
    model = build.model({"x": (Type.FLOAT16, [1, TOKENS, COLUMNS])}, {"y": (Type.FLOAT16, [1, TOKENS, ROWS])})
    return model, {"x": x}, x.astype(np.float64) @ values.reshape(ROWS, COLUMNS).T


def attention(turned: str) -> Built:
    """GroupQueryAttention that rotates `turned` of 32 channels of each of two heads, at positions 0 to 3."""
    rng, build = np.random.default_rng(0), Builder()
    heads, size, cache, half = 2, 32, 16, int(turned) // 2
    angles = np.outer(np.arange(cache), 100.0 ** (-np.arange(half) / half))
    tables = [
        build.tensor(name, Type.FLOAT16, values.astype(np.float16))
        for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles)))
    ]
    shape, past = [1, TOKENS, heads * size], [1, heads, cache, size]
    build.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "past.k", "past.v", "last", "total", *tables],
            ["y", "present.k", "present.v"],
            name="attention",
            domain="com.microsoft",
            num_heads=heads,
            kv_num_heads=heads,
            do_rotary=1,
        )
    )
    half_type = Type.FLOAT16
    inputs = {
        **dict.fromkeys("qkv", (half_type, shape)),
        "past.k": (half_type, past),
        "past.v": (half_type, past),
        "last": (Type.INT32, [1, 1]),
        "total": (Type.INT32, [1]),
    }
    outputs = {"y": (half_type, shape), "present.k": (half_type, past), "present.v": (half_type, past)}
    feeds: Feeds = {name: rng.standard_normal(shape).astype(np.float16) for name in "qkv"}
    feeds |= {name: np.zeros(past, np.float16) for name in ("past.k", "past.v")}
    feeds |= {"last": np.array([[TOKENS - 1]], np.int32), "total": np.array([cache], np.int32)}
    return build.model(inputs, outputs), feeds, _attended(feeds, heads, size, angles[:TOKENS])


def _attended(feeds: Feeds, heads: int, size: int, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    q, k, v = (feeds[name][0].astype(np.float64).reshape(TOKENS, heads, size) for name in "qkv")
    half, cos, sin = angles.shape[1], np.cos(angles)[:, None], np.sin(angles)[:, None]
    for x in (q, k):
        first, second = x[..., :half].copy(), x[..., half : 2 * half].copy()
        x[..., :half], x[..., half : 2 * half] = first * cos - second * sin, second * cos + first * sin
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(size)
    scores[:, np.triu(np.ones((TOKENS, TOKENS), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(1, TOKENS, -1)


def left_over(_: str) -> Built:
    """A node that the NPU takes and one that it does not."""
    model, feeds, _expected = nbits("")
    model.graph.node.append(helper.make_node("Erf", ["y"], ["z"], name="erf"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", Type.FLOAT16, [1, TOKENS, ROWS]))
    return model, feeds, None


CASES: dict[str, Callable[[str], Built]] = {
    "blocked": blocked,
    "multiples": multiples,
    "nbits": nbits,
    "attention": attention,
    "left_over": left_over,
}
