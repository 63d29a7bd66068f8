"""Where an artifact's bytes are, by part and by layer, from its headers alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import BundleError
from converters.gguf.reader import Gguf
from converters.onnx.reader import tensor_bytes
from converters.safetensors_header import DTYPES
from edge.bundle import Variant
from edge.formats import FORMATS

EMBEDDING, ATTENTION, MLP, NORMS, LM_HEAD, REST = "embedding", "attention", "MLP", "norms", "lm_head", "other"
PARTS = (EMBEDDING, ATTENTION, MLP, NORMS, LM_HEAD, REST)

_LAYER = re.compile(r"(?:layers|blk)\.(\d+)\.(.+)")
_PART = (
    # Neutral names (converters.decoder) and llama.cpp's (src/llama-arch.cpp); the first that matches decides.
    (re.compile(r".*norm\b"), NORMS),
    (re.compile(r"(attention\.|attn_)"), ATTENTION),
    (re.compile(r"(mlp\.|ffn_)"), MLP),
    (re.compile(r"(embedding|token_embd)\b"), EMBEDDING),
    (re.compile(r"(lm_head|output)\b"), LM_HEAD),
)


@dataclass(frozen=True)
class Sizes:
    """Bytes by part, and by part of every layer. `parts` adds up to the artifact."""

    parts: Mapping[str, int]
    layers: tuple[Mapping[str, int], ...]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def to_data(self) -> dict[str, Any]:
        return {"parts": dict(self.parts), "layers": [dict(layer) for layer in self.layers]}


def artifact_sizes(variant: Variant) -> Sizes:
    """Of a variant's file, or of its folder. Raises BundleError or CheckpointError when the headers are damaged."""
    if not variant.path.exists():
        raise BundleError(f"{variant.path} is missing", hint="copy the bundle again from where it came")
    if not FORMATS[variant.format].folder:
        return _sizes(_gguf_tensors(variant.path), variant.path.stat().st_size)
    files = sum(f.stat().st_size for f in variant.path.rglob("*") if f.is_file())
    return _sizes(tensor_bytes(variant.path).items(), files)


def checkpoint_sizes(checkpoint: Checkpoint, decoder: Decoder) -> Sizes:
    """Of the weights alone, as the checkpoint stores them."""
    tensors = [
        (weight.name, math.prod(weight.shape) * DTYPES[checkpoint.weight_dtype(weight)].itemsize)
        for weight in decoder.weights()
    ]
    return _sizes(tensors, sum(nbytes for _, nbytes in tensors))


def _gguf_tensors(file: Path) -> Iterator[tuple[str, int]]:
    with Gguf.open(file) as opened:
        for name, tensor in opened.tensors.items():
            yield name, tensor.nbytes


def _sizes(tensors: Iterable[tuple[str, int]], total: int) -> Sizes:
    parts: Counter[str] = Counter()
    layers: dict[int, Counter[str]] = {}
    for name, nbytes in tensors:
        layer, part = place(name)
        parts[part] += nbytes
        if layer is not None:
            layers.setdefault(layer, Counter())[part] += nbytes
    parts[REST] += total - sum(parts.values())
    return Sizes(
        {part: parts[part] for part in PARTS if parts[part]},
        tuple({part: layers[i][part] for part in PARTS if layers[i][part]} for i in sorted(layers)),
    )


def place(tensor: str) -> tuple[int | None, str]:
    """The layer (None outside of the layers) and the part that a tensor belongs to, by its name."""
    found = _LAYER.match(tensor)
    name = found[2] if found else tensor
    part = next((part for pattern, part in _PART if pattern.match(name)), REST)
    return (int(found[1]) if found else None), part
