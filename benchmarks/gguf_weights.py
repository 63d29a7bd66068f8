"""What the linear layers of a GGUF hold, in how many bits, and a float GGUF with other values in them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_LINEAR = re.compile(
    r"blk\.\d+\.(attn_qkv|attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down)\.weight"
)


def is_linear(name: str) -> bool:
    """Whether a GGUF tensor is a matrix of a layer: neither embedding, output, norm nor bias."""
    return _LINEAR.fullmatch(name) is not None


def linear_bits(file: Path) -> float:
    """Bits per weight of the linear layers, from the bytes that the file has for them."""
    tensors = [t for t in gguf.GGUFReader(file).tensors if is_linear(t.name)]
    return 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)


def linear_weights(file: Path) -> Iterator[tuple[str, Floats]]:
    """(name, values [rows, columns]) of every linear layer, in float32."""
    for tensor in gguf.GGUFReader(file).tensors:
        if is_linear(tensor.name):
            rows = gguf.dequantize(tensor.data, tensor.tensor_type)
            yield tensor.name, rows.astype(np.float32)


def with_linear(source: Path, target: Path, values: Callable[[str, Floats], Floats]) -> None:
    """Copy the float32 GGUF `source`, with every linear layer replaced by values(name, its rows)."""
    shutil.copyfile(source, target)
    reader = gguf.GGUFReader(target, "r+")
    for tensor in reader.tensors:
        if is_linear(tensor.name):
            tensor.data[:] = values(tensor.name, np.array(tensor.data))
    reader.data.flush()


def importances(file: Path) -> dict[str, Floats]:
    """llama-imatrix's file: tensor name -> mean square of each input column."""
    found = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(file).tensors}
    return {
        name.removesuffix(".in_sum2"): (sums / found[name.replace(".in_sum2", ".counts")]).reshape(-1)
        for name, sums in found.items()
        if name.endswith(".in_sum2")
    }
