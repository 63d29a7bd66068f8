"""A dense Phi-3 checkpoint as a mixture of experts in PhiMoE's layout that computes the same function: sparse upcycling
(arXiv 2212.05055).

Each expert is the dense MLP. A token goes to two of them, each with the weight 1 (routing as PhiMoE does; near ties
less), so `down` is halved: the sum is what it was. Only the routers are drawn anew, and training does the rest.

Phi-3 has RMSNorm and PhiMoE LayerNorm, which also takes the mean away. The residual stream x of width d is therefore
carried as x U of width d + BLOCK, where the rows of U are orthonormal and each sums to 0: no mean is there to be taken.

    U = [I - c 11', -b 11'],  c = (1 - sqrt(n / (n + d))) / d,  b = sqrt(n / (n + d)) / n,  n = BLOCK

What writes to the stream is multiplied by U; what reads it by U too, after the norm's gain g: W becomes W diag(g) U.
With the gain sqrt(d / (d + n)) and eps d / (d + n) LayerNorm of x U is RMSNorm of x times U. U is close to the
identity: channels stay where they are, outliers too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.plain import require_plain
from quant.blocks import BLOCK
from quant.tensor_file import copy_side_files, write_tensors

Floats = NDArray[np.float32]
_CHUNK_ROWS = 4096
_PLAIN = "upcycle a model in Phi-3 layout whose whole heads are rotated (Phi-3, Phi-3.5, Phi-4, the embedded default)"


@dataclass(frozen=True)
class Upcycling:
    """jitter: PhiMoE's router_jitter_noise; scores nearer than twice that are a tie. seed: of the routers."""

    experts: int = 4
    jitter: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    rows: Callable[[], Iterator[NDArray[Any]]]


def upcycle(checkpoint: Checkpoint, decoder: Decoder, directory: Path, settings: Upcycling) -> None:
    """Write the mixture into the folder `directory`, which exists. Values keep the dtype of the embedding.

    UnsupportedError for a decoder that PhiMoE's layout cannot say: not plain, or with partly rotated heads.
    """
    require_plain(decoder, "PhiMoE's layout", _PLAIN)
    if decoder.rope.dim != decoder.attention.head_dim:
        raise UnsupportedError(
            f"{decoder.architecture} rotates {decoder.rope.dim} of {decoder.attention.head_dim} channels of a head, "
            "and PhiMoE's layout rotates them all",
            hint=_PLAIN,
        )
    dtype = checkpoint.weight_dtype(decoder.embedding)
    tensors = dict(_Layout(checkpoint, decoder, settings).tensors())
    numpy_dtype = checkpoint.read(decoder.embedding.parts[0].tensor, 0, 0).dtype

    def rows(name: str) -> Iterator[NDArray[Any]]:
        return (chunk.astype(numpy_dtype) for chunk in tensors[name].rows())

    copy_side_files(checkpoint.directory, directory)
    shapes = {name: (dtype, tensor.shape) for name, tensor in tensors.items()}
    write_tensors(directory / "model.safetensors", shapes, rows)
    config = _config(checkpoint.config, decoder, settings)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def widened(width: int) -> int:
    """Of the residual stream."""
    return width + BLOCK


def lift(rows: Floats) -> Floats:
    """Rows [n, d] times U, [n, d + BLOCK], float32."""
    d = rows.shape[1]
    share = math.sqrt(BLOCK / (BLOCK + d))
    sums = rows.sum(axis=1, dtype=np.float64, keepdims=True)
    kept = rows - sums * ((1 - share) / d)
    return np.concatenate([kept, np.repeat(-sums * share / BLOCK, BLOCK, axis=1)], axis=1).astype(np.float32)


def _held(values: Floats) -> _Tensor:
    return _Tensor(values.shape, lambda: iter([values]))


class _Layout:
    """The tensors of PhiMoE's layout, made of the dense checkpoint's as they are asked for."""

    def __init__(self, checkpoint: Checkpoint, decoder: Decoder, settings: Upcycling) -> None:
        self._checkpoint, self._decoder, self._settings = checkpoint, decoder, settings
        self._width = widened(decoder.hidden_size)
        self._random = np.random.default_rng(settings.seed)

    def tensors(self) -> Iterator[tuple[str, _Tensor]]:
        decoder = self._decoder
        yield "model.embed_tokens.weight", self._reader(decoder.embedding, None)
        for i, layer in enumerate(decoder.layers):
            name = f"model.layers.{i}"
            yield from self._norm(f"{name}.input_layernorm")
            for short, weight in (("q", layer.q), ("k", layer.k), ("v", layer.v)):
                yield f"{name}.self_attn.{short}_proj.weight", self._reader(weight, layer.input_norm)
            yield f"{name}.self_attn.o_proj.weight", self._writer(layer.o)
            yield from self._norm(f"{name}.post_attention_layernorm")
            moe = f"{name}.block_sparse_moe"
            yield f"{moe}.gate.weight", self._router()
            mlp, norm = layer.dense, layer.post_attention_norm
            for expert in range(self._settings.experts):
                yield f"{moe}.experts.{expert}.w1.weight", self._reader(mlp.gate, norm)
                yield f"{moe}.experts.{expert}.w3.weight", self._reader(mlp.up, norm)
                yield f"{moe}.experts.{expert}.w2.weight", self._writer(mlp.down, 0.5)
        yield from self._norm("model.norm")
        yield "lm_head.weight", self._reader(decoder.lm_head, decoder.final_norm)

    def _reader(self, weight: Weight, norm: Weight | None) -> _Tensor:
        """Rows of a matrix that reads the stream after `norm`, and the embedding's, which are the stream."""

        def rows() -> Iterator[Floats]:
            gain = np.float32(1) if norm is None else self._rows(norm, 0, norm.rows)
            for start in range(0, weight.rows, _CHUNK_ROWS):
                yield lift(self._rows(weight, start, min(start + _CHUNK_ROWS, weight.rows)) * gain)

        return _Tensor((weight.rows, self._width), rows)

    def _writer(self, weight: Weight, scale: float = 1.0) -> _Tensor:
        """A matrix that writes to the stream: its columns are lifted."""

        def rows() -> Iterator[Floats]:
            whole = self._rows(weight, 0, weight.rows) * np.float32(scale)
            yield np.ascontiguousarray(lift(np.ascontiguousarray(whole.T)).T)

        return _Tensor((self._width, weight.shape[1]), rows)

    def _norm(self, name: str) -> Iterator[tuple[str, _Tensor]]:
        gain = math.sqrt(self._decoder.hidden_size / self._width)
        for part, value in (("weight", gain), ("bias", 0.0)):
            yield f"{name}.{part}", _held(np.full(self._width, value, np.float32))

    def _router(self) -> _Tensor:
        # What it reads has a mean square of 1 at most: scores of about that size.
        shape = (self._settings.experts, self._width)
        return _held((self._random.standard_normal(shape) / math.sqrt(self._width)).astype(np.float32))

    def _rows(self, weight: Weight, start: int, stop: int) -> Floats:
        return self._checkpoint.weight_rows(weight, start, stop).astype(np.float32)


def _config(dense: dict[str, Any], decoder: Decoder, settings: Upcycling) -> dict[str, Any]:
    attention, rope = decoder.attention, decoder.rope
    width = widened(decoder.hidden_size)
    scaling = None
    if rope.is_longrope:
        scaling = {
            "type": "longrope",
            "short_factor": list(rope.short_factors or ()),
            "long_factor": list(rope.long_factors or ()),
            "short_mscale": rope.attention_factor,
            "long_mscale": rope.long_attention_factor or rope.attention_factor,
            "original_max_position_embeddings": rope.original_context,
        }
    return {
        "architectures": ["PhiMoEForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": decoder.bos_token_id,
        "eos_token_id": dense.get("eos_token_id"),
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "hidden_dropout": 0.0,
        "hidden_size": width,
        "initializer_range": 0.02,
        "input_jitter_noise": 0.0,
        "intermediate_size": decoder.intermediate_size,
        "lm_head_bias": False,
        "max_position_embeddings": decoder.context_length,
        "model_type": "phimoe",
        "num_attention_heads": attention.heads,
        "num_experts_per_tok": 2,
        "num_hidden_layers": decoder.depth,
        "num_key_value_heads": attention.kv_heads,
        "num_local_experts": settings.experts,
        "original_max_position_embeddings": rope.original_context,
        "output_router_logits": False,
        "pad_token_id": decoder.pad_token_id,
        "rms_norm_eps": decoder.norm_eps * decoder.hidden_size / width,
        "rope_scaling": scaling,
        "rope_theta": rope.theta,
        "router_aux_loss_coef": 0.0,
        "router_jitter_noise": settings.jitter,
        "sliding_window": attention.window,
        "tie_word_embeddings": False,
        "torch_dtype": dense.get("torch_dtype", dense.get("dtype")),
        "use_cache": True,
        "vocab_size": decoder.vocab_size,
    }
