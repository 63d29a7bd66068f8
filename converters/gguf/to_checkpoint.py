"""Rewrite a llama-architecture GGUF as a checkpoint directory in Phi-3 layout.

Both architectures are the same function: RMSNorm, half-split rope, grouped-query attention, SwiGLU. What
differs is the storage: Phi-3 fuses q, k, v into `qkv_proj` and gate, up into `gate_up_proj`, and llama.cpp
stores the rows of q and k pairwise, for interleaved rope. Anything in the GGUF beyond that (rope scaling,
biases, a window, an unknown tensor) is refused by name.

Matrices become float16, vectors float32. Dequantized values `scale * code + minimum` take up to 24 significant
bits; float16 moves them by at most 0.7 % of one quantization step (measured, and tested) at half the size of
float32, while bfloat16 would move them by 5 %. Same file in, same bytes out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf
from converters.gguf.tokenizer_json import tokenizer_files

REWRITE_VERSION = 1
"""Raised whenever the same GGUF would give other bytes: caches key on it."""

_CHUNK_VALUES = 1 << 21
_HINT = "only plain llama-architecture GGUFs can be rewritten; take the model's safetensors instead"


@dataclass(frozen=True)
class _Shape:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


@dataclass(frozen=True)
class _Part:
    """All rows of one GGUF tensor; `heads` > 0 when its rows are stored pairwise per head."""

    tensor: str
    heads: int = 0


@dataclass(frozen=True)
class _Out:
    name: str
    shape: tuple[int, ...]
    parts: tuple[_Part, ...]

    @property
    def dtype(self) -> str:
        return "F16" if len(self.shape) == 2 else "F32"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (2 if self.dtype == "F16" else 4)


def write_checkpoint(
    gguf: Path, directory: Path, *, advance: Callable[[int], None] | None = None
) -> tuple[str, ...]:
    """Write config.json, model.safetensors and tokenizer files into `directory`, an existing empty directory.

    Memory stays at a few row chunks. `advance` is told the bytes written. Returns the files' names, sorted.
    Raises UnsupportedError for a GGUF that is no plain llama, CheckpointError for a damaged one.
    """
    with Gguf.open(gguf) as source:
        shape = _shape(source)
        outs = _layout(source, shape)
        files = _json_files(source, shape, tied="output.weight" not in source.tensors)
        files |= tokenizer_files(source)
        for name, data in files.items():
            _store(directory / name, [data])
        _store(directory / "model.safetensors", _safetensors(source, outs), advance)
    return tuple(sorted([*files, "model.safetensors"]))


def checkpoint_bytes(gguf: Path) -> int:
    """Bytes of tensor data that `write_checkpoint` will write."""
    with Gguf.open(gguf) as source:
        return sum(out.nbytes for out in _layout(source, _shape(source)))


def _get(source: Gguf, key: str, kind: type) -> Any:
    value = source.metadata.get(key)
    if type(value) is not kind:
        raise CheckpointError(f"{source.path}: key '{key}' is missing or no {kind.__name__}", hint=_HINT)
    if kind is int and not 0 < value < 1 << 31:
        raise CheckpointError(f"{source.path}: key '{key}' is {value}", hint=_HINT)
    return value


def _shape(source: Gguf) -> _Shape:
    architecture = source.metadata.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedError(f"{source.path}: architecture {architecture!r}, not 'llama'", hint=_HINT)
    for key in source.metadata:
        if key.startswith("llama.") and key not in _KNOWN_KEYS:
            raise UnsupportedError(f"{source.path}: key '{key}' is not understood", hint=_HINT)
    hidden, heads = _get(source, "llama.embedding_length", int), _get(source, "llama.attention.head_count", int)
    kv_heads = _get(source, "llama.attention.head_count_kv", int)
    if hidden % heads or heads % kv_heads or hidden // heads % 2:
        raise CheckpointError(f"{source.path}: {hidden} wide, {heads} heads, {kv_heads} kv heads", hint=_HINT)
    head_dim = hidden // heads
    for key in ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"):
        if source.metadata.get(key, head_dim) != head_dim:
            raise UnsupportedError(f"{source.path}: key '{key}' is not the head size {head_dim}", hint=_HINT)
    return _Shape(
        layers=_get(source, "llama.block_count", int),
        hidden=hidden,
        intermediate=_get(source, "llama.feed_forward_length", int),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=source.tensor("token_embd.weight").shape[0],
    )


_KNOWN_KEYS = frozenset(
    f"llama.{key}"
    for key in (
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
        "attention.key_length", "attention.value_length", "rope.freq_base", "rope.dimension_count",
    )
)  # fmt: skip


def _layout(source: Gguf, s: _Shape) -> list[_Out]:
    """Every tensor of the checkpoint, in file order. Checks shapes, and that no GGUF tensor is left over."""
    q, kv, wide = s.heads * s.head_dim, s.kv_heads * s.head_dim, s.intermediate
    outs = [_Out("model.embed_tokens.weight", (s.vocab, s.hidden), (_Part("token_embd.weight"),))]
    for i in range(s.layers):
        gg, hf = f"blk.{i}.", f"model.layers.{i}."
        outs += [
            _Out(f"{hf}input_layernorm.weight", (s.hidden,), (_Part(f"{gg}attn_norm.weight"),)),
            _Out(
                f"{hf}self_attn.qkv_proj.weight",
                (q + 2 * kv, s.hidden),
                (
                    _Part(f"{gg}attn_q.weight", s.heads),
                    _Part(f"{gg}attn_k.weight", s.kv_heads),
                    _Part(f"{gg}attn_v.weight"),
                ),
            ),
            _Out(f"{hf}self_attn.o_proj.weight", (s.hidden, q), (_Part(f"{gg}attn_output.weight"),)),
            _Out(f"{hf}post_attention_layernorm.weight", (s.hidden,), (_Part(f"{gg}ffn_norm.weight"),)),
            _Out(
                f"{hf}mlp.gate_up_proj.weight",
                (2 * wide, s.hidden),
                (_Part(f"{gg}ffn_gate.weight"), _Part(f"{gg}ffn_up.weight")),
            ),
            _Out(f"{hf}mlp.down_proj.weight", (s.hidden, wide), (_Part(f"{gg}ffn_down.weight"),)),
        ]
    outs.append(_Out("model.norm.weight", (s.hidden,), (_Part("output_norm.weight"),)))
    if "output.weight" in source.tensors:
        outs.append(_Out("lm_head.weight", (s.vocab, s.hidden), (_Part("output.weight"),)))
    left = set(source.tensors) - {part.tensor for out in outs for part in out.parts}
    if left:
        raise UnsupportedError(f"{source.path}: tensor '{min(left)}' has no place in Phi-3", hint=_HINT)
    for out in outs:
        shapes = [source.tensor(part.tensor).shape for part in out.parts]
        if sum(shape[0] for shape in shapes) != out.shape[0] or any(x[1:] != out.shape[1:] for x in shapes):
            raise CheckpointError(f"{source.path}: tensors of {out.name} have the shapes {shapes}", hint=_HINT)
    return outs


def _safetensors(source: Gguf, outs: list[_Out]) -> Iterator[bytes | memoryview]:
    """A safetensors file (8-byte header length, JSON header padded to 8 bytes, data) in pieces."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for out in outs:
        header[out.name] = {"dtype": out.dtype, "shape": out.shape, "data_offsets": [at, at + out.nbytes]}
        at += out.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for out in outs:
        for part in out.parts:
            for rows in _row_chunks(source, part):
                values = rows.astype(np.float16 if out.dtype == "F16" else np.float32)
                if not np.isfinite(values).all():
                    raise CheckpointError(f"{source.path}: '{part.tensor}' has values past float16", hint=_HINT)
                yield memoryview(np.ascontiguousarray(values)).cast("B")


def _row_chunks(source: Gguf, part: _Part) -> Iterator[NDArray[np.float32]]:
    """Rows of a tensor, q and k in the half-split order of Hugging Face rope."""
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
            # ggml keeps the two channels of a rope pair in neighbouring rows, HF half a head apart.
            chunk = chunk.reshape(-1, unit // 2, 2, cols).swapaxes(1, 2).reshape(-1, cols)
        yield chunk


def _json_files(source: Gguf, s: _Shape, *, tied: bool) -> dict[str, bytes]:
    meta = source.metadata
    context = _get(source, "llama.context_length", int)
    theta = float(meta.get("llama.rope.freq_base", 10000.0))
    ids = {name: meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding")}
    special = {
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["padding"] if ids["padding"] is not None else ids["eos"],
    }
    config = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **special,
        "dtype": "float16",
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "initializer_range": 0.02,
        "intermediate_size": s.intermediate,
        "max_position_embeddings": context,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "original_max_position_embeddings": context,
        "partial_rotary_factor": 1.0,
        "resid_pdrop": 0.0,
        # float32 in the GGUF; the shortest decimal that rounds to it is what the model's config said.
        "rms_norm_eps": float(str(np.float32(_get(source, "llama.attention.layer_norm_rms_epsilon", float)))),
        # Newer readers take rope_parameters, older ones (llama.cpp's converter) the two keys below it.
        "rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": theta, "rope_type": "default"},
        "rope_scaling": None,
        "rope_theta": theta,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": s.vocab,
    }
    return {
        "config.json": _json(config),
        "generation_config.json": _json(special),
    }


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _store(
    path: Path, pieces: Iterator[bytes | memoryview] | list[bytes], advance: Callable[[int], None] | None = None
) -> None:
    with path.open("xb") as file:
        _copy(file, pieces, advance)
        file.flush()
        os.fsync(file.fileno())


def _copy(
    file: BinaryIO,
    pieces: Iterator[bytes | memoryview] | list[bytes],
    advance: Callable[[int], None] | None,
) -> None:
    for piece in pieces:
        file.write(piece)
        if advance:
            advance(len(piece))
