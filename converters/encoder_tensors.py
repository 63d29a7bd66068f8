"""Parts of encoders from pairs of tensors of a checkpoint, weight and bias."""

from __future__ import annotations

from converters.encoders import LayerNorm, Linear, Mlp
from converters.tensor_map import TensorMap


def linear(tensors: TensorMap, name: str, source: str, rows: int, columns: int) -> Linear:
    """`source`.weight and `source`.bias."""
    return Linear(
        tensors.whole(name, f"{source}.weight", rows, columns),
        tensors.whole(f"{name}.bias", f"{source}.bias", rows),
    )


def layer_norm(tensors: TensorMap, name: str, source: str, size: int) -> LayerNorm:
    """`source`.weight and `source`.bias."""
    return LayerNorm(
        tensors.whole(name, f"{source}.weight", size), tensors.whole(f"{name}.bias", f"{source}.bias", size)
    )


def projection(tensors: TensorMap, name: str, sources: tuple[str, str], columns: int, rows: int) -> Mlp:
    """Two linear layers with a GELU between them: [rows, columns], then [rows, rows]."""
    up, down = sources
    return Mlp(
        linear(tensors, f"{name}.up", up, rows, columns), linear(tensors, f"{name}.down", down, rows, rows)
    )
