"""Rewrite a llama-architecture GGUF as a checkpoint directory in Phi-3 layout.

Both architectures are the same function: RMSNorm, rotary embedding, grouped-query attention, SwiGLU. What
differs is the storage: Phi-3 fuses q, k, v into `qkv_proj` and gate, up into `gate_up_proj`, and llama.cpp
keeps the rows of q and k in pairs, for interleaved rope.

Matrices become float16, vectors float32. A dequantized value `scale * code + minimum` needs up to 24
significant bits, float16 keeps 11: it moves a value by less than 1 % of a 4-bit and 7 % of an 8-bit quantization
step (tested), at half the size of float32; bfloat16 would move it eight times as far. Same file in, same bytes
out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.llama import HINT, Llama, describe, phi3_config, special_ids
from converters.gguf.reader import Gguf
from converters.gguf.tokenizer_json import tokenizer_files

REWRITE_VERSION = 2
"""Raised whenever the same GGUF would give other bytes: caches key on it."""

_CHUNK_VALUES = 1 << 21


@dataclass(frozen=True)
class _Part:
    """One GGUF tensor, whole; `heads` > 0 when its rows stand in rope pairs, head by head."""

    tensor: str
    rows: int
    heads: int = 0


@dataclass(frozen=True)
class _Out:
    """A tensor of the checkpoint: `parts` one below the other. `columns` is None for a vector."""

    name: str
    columns: int | None
    parts: tuple[_Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(part.rows for part in self.parts)
        return (rows,) if self.columns is None else (rows, self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<f4" if self.columns is None else "<f2")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_checkpoint(
    gguf: Path, directory: Path, *, advance: Callable[[int], None] | None = None
) -> tuple[str, ...]:
    """Write config.json, model.safetensors and tokenizer files into `directory`, which exists.

    Memory stays at a few row chunks. `advance` is told the bytes of weights written. Returns the names of the
    files, sorted. Raises UnsupportedError for a GGUF that is no plain llama, CheckpointError for a damaged one.
    """
    with Gguf.open(gguf) as source:
        model = describe(source)
        outs = _layout(source, model)
        files = {
            "config.json": _json(phi3_config(model)),
            "generation_config.json": _json(special_ids(model)),
            **tokenizer_files(source),
        }
        for name, data in files.items():
            _store(directory / name, [data])
        _store(directory / "model.safetensors", _safetensors(source, outs, advance or (lambda n: None)))
    return tuple(sorted([*files, "model.safetensors"]))


def checkpoint_bytes(gguf: Path) -> int:
    """Bytes of weights that `write_checkpoint` will write."""
    with Gguf.open(gguf) as source:
        return sum(out.nbytes for out in _layout(source, describe(source)))


def _layout(source: Gguf, m: Llama) -> list[_Out]:
    """Every tensor of the checkpoint, in file order. Refuses odd shapes, and tensors that have no place."""
    d, q, kv, wide = m.hidden, m.heads * m.head_dim, m.kv_heads * m.head_dim, m.intermediate
    outs = [_Out("model.embed_tokens.weight", d, (_Part("token_embd.weight", m.vocab),))]
    for i in range(m.layers):
        blk, layer = f"blk.{i}.", f"model.layers.{i}."
        qkv = (
            _Part(f"{blk}attn_q.weight", q, m.heads),
            _Part(f"{blk}attn_k.weight", kv, m.kv_heads),
            _Part(f"{blk}attn_v.weight", kv),
        )
        gate_up = (_Part(f"{blk}ffn_gate.weight", wide), _Part(f"{blk}ffn_up.weight", wide))
        outs += [
            _Out(f"{layer}input_layernorm.weight", None, (_Part(f"{blk}attn_norm.weight", d),)),
            _Out(f"{layer}self_attn.qkv_proj.weight", d, qkv),
            _Out(f"{layer}self_attn.o_proj.weight", q, (_Part(f"{blk}attn_output.weight", d),)),
            _Out(f"{layer}post_attention_layernorm.weight", None, (_Part(f"{blk}ffn_norm.weight", d),)),
            _Out(f"{layer}mlp.gate_up_proj.weight", d, gate_up),
            _Out(f"{layer}mlp.down_proj.weight", wide, (_Part(f"{blk}ffn_down.weight", d),)),
        ]
    outs.append(_Out("model.norm.weight", None, (_Part("output_norm.weight", d),)))
    if not m.tied:
        outs.append(_Out("lm_head.weight", d, (_Part("output.weight", m.vocab),)))
    _check(source, outs)
    return outs


def _check(source: Gguf, outs: list[_Out]) -> None:
    left = set(source.tensors) - {part.tensor for out in outs for part in out.parts}
    if left:
        raise UnsupportedError(f"{source.path}: tensor '{min(left)}' has no place in Phi-3", hint=HINT)
    for out in outs:
        for part in out.parts:
            shape = source.tensor(part.tensor).shape
            if shape != (part.rows, *out.shape[1:]):
                raise CheckpointError(
                    f"{source.path}: tensor '{part.tensor}' has the shape {shape}", hint=HINT
                )


def _safetensors(
    source: Gguf, outs: list[_Out], advance: Callable[[int], None]
) -> Iterator[bytes | NDArray[Any]]:
    """A safetensors file (8 bytes of header length, JSON header padded to 8 bytes, data) in pieces."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for out in outs:
        dtype = f"F{8 * out.dtype.itemsize}"
        header[out.name] = {"dtype": dtype, "shape": out.shape, "data_offsets": [at, at + out.nbytes]}
        at += out.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for out in outs:
        for part in out.parts:
            for rows in _row_chunks(source, part):
                with np.errstate(over="ignore", invalid="ignore"):
                    values = np.ascontiguousarray(rows, out.dtype)
                if not np.isfinite(values).all():
                    what = f"tensor '{part.tensor}' is not finite as float16"
                    raise CheckpointError(f"{source.path}: {what}", hint=HINT)
                yield values
                advance(values.nbytes)


def _row_chunks(source: Gguf, part: _Part) -> Iterator[NDArray[np.float32]]:
    """Rows of a tensor; those of q and k in the half-split order of Hugging Face rope."""
    shape = source.tensor(part.tensor).shape
    if len(shape) == 1:
        yield source.read(part.tensor)
        return
    rows, cols = shape
    unit = rows // part.heads if part.heads else 1
    step = max(1, _CHUNK_VALUES // cols // unit) * unit
    for start in range(0, rows, step):
        chunk = source.read(part.tensor, start, min(start + step, rows))
        if part.heads:
            # The two channels of a rope pair are neighbours in ggml, and half a head apart here.
            chunk = chunk.reshape(-1, unit // 2, 2, cols).swapaxes(1, 2).reshape(-1, cols)
        yield chunk


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _store(path: Path, pieces: Iterable[bytes | NDArray[Any]]) -> None:
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece if isinstance(piece, bytes) else piece.data)
        file.flush()
        os.fsync(file.fileno())
