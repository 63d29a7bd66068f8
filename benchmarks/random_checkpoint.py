"""Write a random Phi-3 or Phi-3.5-MoE checkpoint: `python -m benchmarks.random_checkpoint SHAPE DIR`.

Values are normal with standard deviation 1 / sqrt(columns), norm gains uniform in 0.5..1.5, biases normal with 0.2,
so that logits are lively and every error shows. Nothing is held whole: rows are written in chunks. A checkpoint of
more than POOL values draws them from a pool of POOL values at random offsets: 7.7 GB then take as long as the disk
does, and values repeat, which no conversion step can notice.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks import hybrid_shapes, moe_shapes, small_shapes
from benchmarks.hybrid_shapes import HYBRID_SHAPES
from benchmarks.moe_shapes import MOE_SHAPES, MOE_TOKENIZERS
from benchmarks.shapes import SHAPES, TOKENIZERS
from benchmarks.small_shapes import SMALL_SHAPES
from benchmarks.toy_tokenizers import Kind, write_tokenizer

__all__ = ["ALL_SHAPES", "ALL_TOKENIZERS", "MOE_SHAPES", "SHAPES", "TOKENIZERS", "write_checkpoint"]

ALL_SHAPES = SHAPES | MOE_SHAPES | HYBRID_SHAPES | SMALL_SHAPES
ALL_TOKENIZERS: dict[str, Kind] = (
    TOKENIZERS
    | MOE_TOKENIZERS
    | dict.fromkeys(HYBRID_SHAPES, "bpe")
    | dict.fromkeys(SMALL_SHAPES, "tiktoken")
)
_TENSORS = {module.MODEL_TYPE: module.tensor_shapes for module in (moe_shapes, hybrid_shapes, small_shapes)}

DTypeName = Literal["bf16", "f16", "f32", "f64"]
POOL = 1 << 23
_CHUNK = 1 << 21
_DTYPES: dict[str, tuple[str, str, Any]] = {
    "bf16": ("BF16", "bfloat16", ml_dtypes.bfloat16),
    "f16": ("F16", "float16", np.float16),
    "f32": ("F32", "float32", np.float32),
    "f64": ("F64", "float64", np.float64),
}


def write_checkpoint(
    directory: Path,
    config: dict[str, Any],
    *,
    seed: int = 0,
    dtype: DTypeName = "bf16",
    shards: int = 1,
    tokenizer: Kind | None = "bpe",
) -> None:
    """Write config, safetensors and tokenizer files into `directory` (made if missing).

    `config` is hub layout (SHAPES holds some). Token ids that it does not set are taken from the tokenizer.
    The same arguments give the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    label, config_dtype, numpy_dtype = _DTYPES[dtype]
    config = {**config, "torch_dtype": config_dtype}
    if tokenizer is not None:
        ids = write_tokenizer(directory, tokenizer)
        end = ids["<|endoftext|>"]
        config = {"bos_token_id": ids.get("<s>", end), "eos_token_id": end, "pad_token_id": end} | config
        turn_end = ids["<|im_end|>" if tokenizer == "bpe-cl100k" else "<|end|>"]
        _dump(
            directory / "generation_config.json",
            {"bos_token_id": config["bos_token_id"], "eos_token_id": [turn_end, end], "pad_token_id": end},
        )
    _dump(directory / "config.json", dict(sorted(config.items())))

    shapes = dict(tensor_shapes(config))
    values = _Values(seed, numpy_dtype, total=sum(math.prod(s) for s in shapes.values()))
    width = np.dtype(numpy_dtype).itemsize
    files: dict[str, str] = {}
    for name, group in _split(shapes, shards):
        files |= dict.fromkeys(group, name)
        with (directory / name).open("wb") as file:
            write_header(file, {tensor: (label, shapes[tensor], width) for tensor in group})
            for tensor in group:
                for chunk in values.chunks(tensor, shapes[tensor]):
                    file.write(chunk.view(np.uint8).data)
    if shards > 1:
        size = sum(math.prod(s) for s in shapes.values()) * width
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
        _dump(directory / "model.safetensors.index.json", index)


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in forward order."""
    if config["model_type"] in _TENSORS:
        yield from _TENSORS[config["model_type"]](config)
        return
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "self_attn.qkv_proj.weight", ((heads + 2 * kv_heads) * head_dim, hidden)
        yield layer + "self_attn.o_proj.weight", (hidden, heads * head_dim)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "mlp.gate_up_proj.weight", (2 * inner, hidden)
        yield layer + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)


class _Values:
    """Random rows in the storage dtype, from a generator or, above POOL values in all, from a pool."""

    def __init__(self, seed: int, dtype: Any, *, total: int) -> None:
        self._rng = np.random.Generator(np.random.SFC64(seed))
        self._dtype = dtype
        self._unit = self._rng.standard_normal(POOL, np.float32) if total > POOL else None
        self._pools: dict[int, NDArray[Any]] = {}

    def chunks(self, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
        if name.endswith("dt_proj.bias"):
            # Steps between 0.02 and 0.3: states that last from a few tokens to a few dozen.
            yield self._rng.uniform(-4, -1, shape).astype(self._dtype)
            return
        if name.endswith(".bias") or ".lambda_" in name:
            yield (0.2 * self._rng.standard_normal(shape, np.float32)).astype(self._dtype)
            return
        if len(shape) == 1:
            yield self._rng.uniform(0.5, 1.5, shape).astype(self._dtype)
            return
        columns, left = shape[1], math.prod(shape)
        while left:
            count = min(left, _CHUNK)
            yield self._draw(count, columns)
            left -= count

    def _draw(self, count: int, columns: int) -> NDArray[Any]:
        std = np.float32(1 / math.sqrt(columns))
        if self._unit is None:
            return (self._rng.standard_normal(count, np.float32) * std).astype(self._dtype)
        if columns not in self._pools:
            self._pools[columns] = (self._unit * std).astype(self._dtype)
        start = int(self._rng.integers(POOL - count))
        return self._pools[columns][start : start + count]


def _split(shapes: dict[str, tuple[int, ...]], shards: int) -> Iterator[tuple[str, list[str]]]:
    """Tensors in order, cut into `shards` files of about the same size."""
    if shards == 1:
        yield "model.safetensors", list(shapes)
        return
    groups: list[list[str]] = [[] for _ in range(shards)]
    total = sum(math.prod(s) for s in shapes.values())
    before = 0
    for name, shape in shapes.items():
        groups[min(shards - 1, before * shards // total)].append(name)
        before += math.prod(shape)
    for i, group in enumerate(groups, 1):
        yield f"model-{i:05d}-of-{shards:05d}.safetensors", group


def write_header(file: BinaryIO, tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> None:
    """The safetensors header of {tensor: (dtype label, shape, bytes of a value)}: 8 bytes of length, then JSON padded
    to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (label, shape, width) in tensors.items():
        end = offset + math.prod(shape) * width
        header[name] = {"dtype": label, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random checkpoint.")
    parser.add_argument("shape", choices=ALL_SHAPES)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, help="instead of the shape's own number of layers")
    parser.add_argument("--dtype", choices=_DTYPES, default="bf16")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = dict(ALL_SHAPES[options.shape])
    if options.layers is not None:
        config["num_hidden_layers"] = options.layers
    write_checkpoint(
        options.directory,
        config,
        seed=options.seed,
        dtype=options.dtype,
        shards=options.shards,
        tokenizer=ALL_TOKENIZERS[options.shape],
    )
    print(options.directory)


if __name__ == "__main__":
    main()
