"""GGUF files that are damaged, hostile, or no model that can be rewritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from gguf import GGMLQuantizationType

from converters.gguf.reader import Gguf
from tests.attacks import ggufs
from tests.converters.llama_gguf import TOKENS, model, write
from tests.messages import World, add, case


@case
def hostile_headers(world: World) -> None:
    for number, (name, (make, _)) in enumerate(ggufs.HOSTILE.items()):
        path = world.path / f"{number}.gguf"
        path.write_bytes(make())
        world.heading(name)
        world.call(Gguf.open, path)


@case
def type_that_cannot_be_read(world: World) -> None:
    path = world.path / "i32.gguf"
    path.write_bytes(ggufs.file([], [ggufs.tensor(kind=int(GGMLQuantizationType.I32))]))
    with Gguf.open(path) as file:
        world.call(file.read, "t")
        world.call(file.read, "nowhere")


@case
def shrinks_while_it_is_read(world: World) -> None:
    path = world.path / "t.gguf"
    path.write_bytes(ggufs.file([], [ggufs.tensor()]))
    with Gguf.open(path) as file:
        with path.open("r+b") as raw:
            raw.truncate(128)
        world.call(file.read, "t")


@case
def shrinks_while_its_header_is_read(world: World) -> None:
    (world.path / "t.gguf").write_bytes(ggufs.file([], [ggufs.tensor()])[:60])
    with mock.patch.object(os, "fstat", return_value=mock.Mock(st_size=5000)):
        world.call(Gguf.open, world.path / "t.gguf")


@case
def is_missing(world: World) -> None:
    world.call(Gguf.open, world.path / "none.gguf")


def _llama(**changes: Any) -> Callable[[World], None]:
    def run(world: World) -> None:
        write(world.path / "x.gguf", model(), **changes)
        world.edge("convert", "x.gguf", "--target", "cpu", "--dry-run")

    return run


for name, keys in {
    "key is not understood": {"llama.expert_count": 8},
    "widths do not divide": {"llama.attention.head_count": 3},
    "head size": {"llama.rope.dimension_count": 8},
    "key is missing": {"llama.block_count": None},
    "number is not finite": {"llama.rope.freq_base": float("nan")},
    "token id": {"tokenizer.ggml.eos_token_id": 99_999},
    "token id of another kind": {"tokenizer.ggml.eos_token_id": "two"},
    "no end": {"tokenizer.ggml.eos_token_id": None},
    "another architecture": {"general.architecture": "mamba"},
    "tokenizer of another kind": {"tokenizer.ggml.pre": "llama-bpe"},
    "tokenizer flag": {"tokenizer.ggml.add_bos_token": True},
    "token types": {"tokenizer.ggml.token_type": [1]},
    "tokens twice": {"tokenizer.ggml.tokens": [TOKENS[0], *TOKENS[:-1]]},
    "no merges": {"tokenizer.ggml.merges": None},
}.items():
    add(f"gguf/llama {name}", _llama(keys=keys))

add("gguf/llama tensor without a place", _llama(tensors={"blk.0.attn_q.bias": np.ones(64, np.float32)}))
add("gguf/llama tensor of another shape", _llama(tensors={"blk.0.attn_norm.weight": np.ones(32, np.float32)}))
add(
    "gguf/llama tensor beyond float16",
    _llama(tensors={"blk.0.ffn_up.weight": np.full((96, 64), 1e30, np.float32)}),
)
