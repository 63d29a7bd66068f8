"""Parts that every ONNX graph of this project is made of, whatever device it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto

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
    graph: Graph, stored: Stored, x: str, output: str, weight: Sequence[str] = (), **attributes: Any
) -> str:
    """x times the transpose of what is stored in blocks. ValueError for a float storage.

    `weight`: names of codes, scales and zero points, where they are not the stored tensors as they are.
    """
    if stored.format is None:
        raise ValueError(f"{stored.name} is stored as {stored.storage}, not in blocks")
    return graph.node(
        "MatMulNBits",
        [x, *(weight or [graph.external(tensor) for tensor in stored.tensors])],
        output,
        domain=MICROSOFT,
        K=stored.columns,
        N=stored.rows,
        bits=stored.format.bits,
        block_size=BLOCK,
        **attributes,
    )


def residual_norm(
    graph: Graph, name: str, residual: str, update: str | None, gain: str, epsilon: float
) -> tuple[str, str]:
    """(RMSNorm(residual + update) as `name`.out, residual + update); no update: the residual as it is."""
    normed = f"{name}.out"
    if update is None:
        inputs = [residual, gain]
        graph.node("SimplifiedLayerNormalization", inputs, normed, axis=-1, epsilon=epsilon, stash_type=1)
        return normed, residual
    total = f"{name}.residual"
    graph.node(
        "SkipSimplifiedLayerNormalization",
        [residual, update, gain],
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
