"""Tokenizers that llama.cpp would not follow to the letter, and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.gguf import open_writer, tokenizer
from converters.models import describe
from quant.recipe import Recipe
from tests.messages import World, case

Change = Callable[[dict[str, Any]], object]
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, "trim_offsets": True}
_SPLIT = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}


def _template(*tokens: str) -> dict[str, Any]:
    parts = [{"SpecialToken": {"id": t, "type_id": 0}} for t in tokens]
    return {"type": "TemplateProcessing", "single": [*parts, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {}}  # fmt: skip


def _refused(world: World, name: str, changes: dict[str, Change | str]) -> None:
    """Convert `name` for android with each change made to its tokenizer.json."""
    file = world.copy(name) / "tokenizer.json"
    sound = file.read_text(encoding="utf-8")
    for label, change in changes.items():
        if isinstance(change, str):
            file.write_text(change)
        else:
            data = json.loads(sound)
            change(data)
            file.write_text(json.dumps(data))
        world.heading(label)
        world.edge("convert", "checkpoint", "--target", "android", "--no-proof", "-o", "b", "--threads", "1")


def _vocabulary(data: dict[str, Any]) -> list[str]:
    return list(data["model"]["vocab"])


def _pre(*stages: Any) -> Change:
    return lambda d: d.update(pre_tokenizer={"type": "Sequence", "pretokenizers": list(stages)})


@case
def byte_level(world: World) -> None:
    _refused(
        world,
        "phi4",
        {
            "no JSON": "{",
            "a list": "[]",
            "no model": "{}",
            "another kind": lambda d: d["model"].update(type="Unigram"),
            "dropout": lambda d: d["model"].update(dropout=0.1),
            "merge of nothing": lambda d: d["model"]["merges"].append(["zz", "yy"]),
            "normalizer": lambda d: d.update(normalizer={"type": "NFC"}),
            "id beyond the embedding": lambda d: d["model"]["vocab"].update(beyond=10**6),
            "one id, two tokens": lambda d: d["model"]["vocab"].update(other=0),
            "one token, two ids": lambda d: d["added_tokens"].append(
                {**d["added_tokens"][0], "content": _vocabulary(d)[0], "id": 639}
            ),
            "name of an unused id": lambda d: d["model"]["vocab"].update({"[PAD639]": 638}),
            "single word": lambda d: d["added_tokens"][0].update(single_word=True),
            "post-processor": lambda d: d.update(post_processor={"type": "RobertaProcessing"}),
            "tokens around": lambda d: d.update(
                post_processor=_template(*(t["content"] for t in d["added_tokens"][:2]))
            ),
            "unknown expression": _pre(_SPLIT, _BYTE_LEVEL),
            "unknown behavior": _pre({**_SPLIT, "behavior": "Removed"}, _BYTE_LEVEL),
            "unknown stage": _pre({"type": "Whitespace"}, _BYTE_LEVEL),
            "no byte level": _pre(_SPLIT),
            "prefix space": _pre({**_BYTE_LEVEL, "add_prefix_space": True}),
        },
    )


@case
def sentencepiece(world: World) -> None:
    def first_merge(data: dict[str, Any]) -> list[str]:
        merge = data["model"]["merges"][0]
        return merge.split(" ") if isinstance(merge, str) else list(merge)

    _refused(
        world,
        "phi3-mini-4k",
        {
            "no byte": lambda d: d["model"]["vocab"].pop("<0x41>"),
            "ignore merges": lambda d: d["model"].update(ignore_merges=True),
            "normalized token": lambda d: d["added_tokens"][0].update(normalized=True),
            "normalizer": lambda d: d.update(normalizer={"type": "NFC"}),
            "prepends": lambda d: d["normalizer"]["normalizers"][0].update(prepend="_"),
            "merge that is missing": lambda d: d["model"]["merges"].pop(0),
            "merges apart": lambda d: d["model"]["merges"].append(first_merge(d)),
        },
    )


@case
def other_files(world: World) -> None:
    directory = world.copy("phi4")
    (directory / "tokenizer.json").unlink()
    world.edge("convert", "checkpoint", "--target", "android", "--no-proof", "-o", "b")
    (directory / "tokenizer.model").write_bytes(b"x")
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
    options = {"context_length": 64, "checkpoint_directory": directory, "model_name": "b"}
    world.call(open_writer, decoder, Recipe.preset("f32"), world.path / "b.gguf", **options)


@case
def too_large(world: World) -> None:
    file = Path(world.copy("phi4")) / "tokenizer.json"
    file.write_text("[" + "," * (tokenizer.MAX_JSON_VALUES + 1) + "]")
    world.edge("convert", "checkpoint", "--target", "android", "--no-proof", "-o", "b")
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)
    world.edge("convert", "checkpoint", "--target", "android", "--no-proof", "-o", "b")
