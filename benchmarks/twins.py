"""Twins of a checkpoint, the same function in other weights: `python -m benchmarks.twins DIR [--model NAME]`.

The embedded default's weights come from a 4-bit file and lie on its grid, so that quantizing them to 4 bits
again looks better than it is. These twins compute the same logits from weights that lie on no grid:

- rotated: the residual stream is turned by a random orthogonal matrix, with the norms' gains folded into the
  linear layers behind them (the invariance that QuaRot uses, arXiv 2404.00456). Outlier channels are gone.
- permuted: the channels of the residual stream, of each MLP and of each value head change places. Every
  weight stays what it was, and outliers stay, but no block holds what a block of the file held.
- wide: an isometry instead of a rotation, from 576 into 768 channels, with zero heads added: llama.cpp's
  superblocks of 256 then fit into every row, so that its K-quants need not fall back to larger types.

Float64 inside, float32 in the file, fixed seeds. Phi-3 layout in one safetensors file.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.reference import logits
from edge.sources import resolve

DEFAULT = "smollm2-135m-instruct"
SEED = 20261123
SAMPLE = Path("edge/proof.txt")

Floats = NDArray[np.float64]
Config = dict[str, Any]
Tensors = dict[str, Floats]
EMBEDDING, FINAL_NORM, LM_HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def rotated(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Residual stream times a random orthogonal matrix; norms 1; lm_head apart from the embedding."""
    return _isometry(tensors, config, config["hidden_size"])


def wide(tensors: Tensors, config: Config, *, width: int = 768) -> tuple[Tensors, Config]:
    """Residual stream in `width` channels, and as many more heads of zeros as that width asks for.

    `width` must be a multiple of the width of one query group (heads / kv_heads heads), so that groups stay.
    """
    return _isometry(tensors, config, width)


def permuted(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Residual, MLP and value-head channels in random order; a tied lm_head stays tied."""
    rng = np.random.default_rng(SEED)
    heads, kv_heads, size = _attention(config)
    stream = rng.permutation(config["hidden_size"])
    out = {EMBEDDING: tensors[EMBEDDING][:, stream], FINAL_NORM: tensors[FINAL_NORM][stream]}
    if LM_HEAD in tensors:
        out[LM_HEAD] = tensors[LM_HEAD][:, stream]
    for layer in _layers(config):
        for norm in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            out[layer + norm] = tensors[layer + norm][stream]
        qkv, split = tensors[layer + "self_attn.qkv_proj.weight"], (heads + kv_heads) * size
        within = np.stack([rng.permutation(size) for _ in range(kv_heads)])
        values = (within + size * np.arange(kv_heads)[:, None]).reshape(-1)
        out[layer + "self_attn.qkv_proj.weight"] = np.concatenate([qkv[:split], qkv[split:][values]])[
            :, stream
        ]
        # Query head h reads the values of key-value head h // group, in their new order.
        mixed = np.repeat(within, heads // kv_heads, axis=0) + size * np.arange(heads)[:, None]
        out[layer + "self_attn.o_proj.weight"] = tensors[layer + "self_attn.o_proj.weight"][
            np.ix_(stream, mixed.reshape(-1))
        ]
        inner = rng.permutation(config["intermediate_size"])
        both = np.concatenate([inner, inner + inner.size])
        out[layer + "mlp.gate_up_proj.weight"] = tensors[layer + "mlp.gate_up_proj.weight"][
            np.ix_(both, stream)
        ]
        out[layer + "mlp.down_proj.weight"] = tensors[layer + "mlp.down_proj.weight"][np.ix_(stream, inner)]
    return out, dict(config)


TWINS: dict[str, Callable[[Tensors, Config], tuple[Tensors, Config]]] = {
    "rotated": rotated,
    "permuted": permuted,
    "wide": wide,
}


def _isometry(tensors: Tensors, config: Config, width: int) -> tuple[Tensors, Config]:
    hidden = config["hidden_size"]
    heads, kv_heads, size = _attention(config)
    more = width // size - heads if width != hidden else 0
    more_kv = more * kv_heads // heads
    basis = _orthogonal(width)[:hidden]
    # A mean over more channels is smaller by hidden / width: the norms' outputs grow, and what reads them
    # shrinks, and so does epsilon.
    read = basis * math.sqrt(hidden / width)
    out = {
        EMBEDDING: tensors[EMBEDDING] @ basis,
        LM_HEAD: (tensors.get(LM_HEAD, tensors[EMBEDDING]) * tensors[FINAL_NORM]) @ read,
        FINAL_NORM: np.ones(width),
    }
    for layer in _layers(config):
        gains = tensors[layer + "input_layernorm.weight"]
        qkv = (tensors[layer + "self_attn.qkv_proj.weight"] * gains) @ read
        q, k, v = np.split(qkv, [heads * size, (heads + kv_heads) * size])
        rows = [_padded(q, more * size), _padded(k, more_kv * size), _padded(v, more_kv * size)]
        out[layer + "self_attn.qkv_proj.weight"] = np.concatenate(rows)
        o = tensors[layer + "self_attn.o_proj.weight"]
        out[layer + "self_attn.o_proj.weight"] = _padded((basis.T @ o).T, more * size).T
        gains = tensors[layer + "post_attention_layernorm.weight"]
        out[layer + "mlp.gate_up_proj.weight"] = (tensors[layer + "mlp.gate_up_proj.weight"] * gains) @ read
        out[layer + "mlp.down_proj.weight"] = basis.T @ tensors[layer + "mlp.down_proj.weight"]
        out[layer + "input_layernorm.weight"] = np.ones(width)
        out[layer + "post_attention_layernorm.weight"] = np.ones(width)
    return out, config | {
        "hidden_size": width,
        "num_attention_heads": heads + more,
        "num_key_value_heads": kv_heads + more_kv,
        "rms_norm_eps": config["rms_norm_eps"] * hidden / width,
        "tie_word_embeddings": False,
    }


def _orthogonal(size: int) -> Floats:
    """Uniformly distributed (Haar): QR of a Gaussian matrix, with R's diagonal made positive."""
    q, r = np.linalg.qr(np.random.default_rng(SEED).standard_normal((size, size)))
    return q * np.sign(np.diagonal(r))


def _padded(rows: Floats, more: int) -> Floats:
    return np.concatenate([rows, np.zeros((more, rows.shape[1]))])


def _attention(config: Config) -> tuple[int, int, int]:
    """(query heads, key-value heads, channels of a head)."""
    heads = config["num_attention_heads"]
    return heads, config["num_key_value_heads"], config["hidden_size"] // heads


def _layers(config: Config) -> list[str]:
    return [f"model.layers.{i}." for i in range(config["num_hidden_layers"])]


def write_twin(source: Path, target: Path, kind: str) -> None:
    """Write the twin `kind` of the checkpoint `source` into `target`, with its tokenizer files."""
    with Checkpoint.open(source) as checkpoint:
        tensors = {name: checkpoint.read(name).astype(np.float64) for name in checkpoint.tensors}
        config = dict(checkpoint.config)
    tensors, config = TWINS[kind](tensors, config)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.suffix != ".safetensors" and file.name != "model.safetensors.index.json":
            shutil.copyfile(file, target / file.name)
    config |= {"torch_dtype": "float32", "dtype": "float32"}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    save_file(arrays, target / "model.safetensors", metadata={"format": "pt"})


def largest_difference(one: Path, other: Path, ids: list[int]) -> tuple[float, float]:
    """(largest difference of the two checkpoints' logits, largest logit), teacher-forced over `ids`."""
    values = []
    for directory in (one, other):
        with Checkpoint.open(directory) as checkpoint:
            values.append(logits(checkpoint, describe(checkpoint), ids))
    return float(np.abs(values[0] - values[1]).max()), float(np.abs(values[0]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", default=DEFAULT, help="a name or a checkpoint directory in Phi-3 layout")
    parser.add_argument("--kind", choices=TWINS, action="append", help="default: all")
    options = parser.parse_args()
    source = resolve(options.model).directory
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(source / "tokenizer.json")).encode(SAMPLE.read_text()).ids[:256]
    for kind in options.kind or TWINS:
        write_twin(source, options.directory / kind, kind)
        error, largest = largest_difference(source, options.directory / kind, ids)
        print(f"{kind}: logits differ by at most {error:.1e} (largest {largest:.1f}, {len(ids)} tokens)")


if __name__ == "__main__":
    main()
