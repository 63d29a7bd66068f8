"""Parts that every ONNX graph of this project is made of, whatever device it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto

from converters.decoder import Norm
from converters.onnx.graph import MICROSOFT, Graph
from converters.onnx.tensors import Stored
from quant.blocks import BLOCK


def embed(graph: Graph, stored: Stored) -> str:
    """Rows of the embedding at `input_ids`, float32. Tied, block-quantized: the very bytes that the lm_head
    multiplies by."""
    return gather(graph, stored, "input_ids", "embedded")


def gather(graph: Graph, stored: Stored, rows: str, output: str) -> str:
    """Rows of a stored matrix at the indices `rows`, float32."""
    if stored.format is None:
        table = graph.external(stored.tensors[0])
        return float32(graph, graph.node("Gather", [table, rows], output), stored)
    codes, *others = stored.tensors
    # GatherBlockQuantized wants two axes where MatMulNBits wants three: a second view, no Reshape, because
    # onnxruntime folds a Reshape of an initializer into a copy.
    table = graph.external(codes, name=f"{codes.name}.rows", dims=(codes.dims[0], codes.row_bytes))
    return graph.node(
        "GatherBlockQuantized",
        [table, rows, *(graph.external(tensor) for tensor in others)],
        output,
        domain=MICROSOFT,
        bits=stored.format.bits,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )


def float32(graph: Graph, value: str, stored: Stored) -> str:
    """Widen what is stored as f16 or bf16. Of a weight onnxruntime does this once, at load: the file stays half as
    large, memory does not."""
    if stored.storage == "f32":
        return value
    return graph.node("Cast", [value], f"{value}.float32", to=TensorProto.FLOAT)


def matmul_nbits(
    graph: Graph,
    stored: Stored,
    x: str,
    output: str,
    weight: Sequence[str] = (),
    bias: str = "",
    **attributes: Any,
) -> str:
    """x times the transpose of what is stored in blocks, plus `bias`. ValueError for a float storage.

    `weight`: names of codes, scales and zero points, where they are not the stored tensors as they are.
    """
    if stored.format is None:
        raise ValueError(f"{stored.name} is stored as {stored.storage}, not in blocks")
    names = [*(weight or [graph.external(tensor) for tensor in stored.tensors])]
    if bias:
        names += [""] * (4 - len(names)) + [bias]
    return graph.node(
        "MatMulNBits",
        [x, *names],
        output,
        domain=MICROSOFT,
        K=stored.columns,
        N=stored.rows,
        bits=stored.format.bits,
        block_size=BLOCK,
        **attributes,
    )


def linear(graph: Graph, stored: Stored, x: str, output: str, *, bias: str = "", accuracy_level: int) -> str:
    """x times the transpose of what is stored, in whatever storage, plus `bias`."""
    if stored.format is not None:
        return matmul_nbits(graph, stored, x, output, bias=bias, accuracy_level=accuracy_level)
    # transB in the operator: the checkpoint's [out, in] order fits as it is, and onnxruntime packs the
    # weight once, where a Transpose node costs a second copy while loading.
    values = float32(graph, graph.external(stored.tensors[0]), stored)
    product = f"{stored.name}.product" if bias else output
    graph.node("FusedMatMul", [x, values], product, domain=MICROSOFT, transB=1)
    return graph.node("Add", [product, bias], output) if bias else product


NORMS: dict[Norm, str] = {"rms": "SimplifiedLayerNormalization", "layer": "LayerNormalization"}
"""The operators; those that add first are called the same with Skip before."""


def residual_norm(
    graph: Graph,
    name: str,
    residual: str,
    update: str | None,
    gain: str,
    epsilon: float,
    *,
    kind: Norm = "rms",
    bias: str | None = None,
) -> tuple[str, str]:
    """(norm(residual + update) as `name`.out, residual + update); no update: the residual as it is. Only LayerNorm
    has a bias."""
    normed, gains = f"{name}.out", [gain] if bias is None else [gain, bias]
    if update is None:
        inputs = [residual, *gains]
        graph.node(NORMS[kind], inputs, normed, axis=-1, epsilon=epsilon, stash_type=1)
        return normed, residual
    total = f"{name}.residual"
    graph.node(
        f"Skip{NORMS[kind]}",
        [residual, update, *gains],
        [normed, "", "", total],
        domain=MICROSOFT,
        epsilon=epsilon,
    )
    return normed, total


def gated(graph: Graph, name: str, gate: str, up: str) -> str:
    """silu(gate) * up, the inside of SwiGLU (arXiv 2002.05202)."""
    sigmoid = graph.node("Sigmoid", [gate], f"{name}.sigmoid")
    silu = graph.node("Mul", [gate, sigmoid], f"{name}.silu")
    return graph.node("Mul", [silu, up], f"{name}.product")
