"""How a sentence-transformers checkpoint makes one vector of a text: modules.json and what it names.

Layout: https://sbert.net/docs/sentence_transformer/usage/custom_models.html ("Structure of Sentence Transformer
Models").
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoint_files import open_inside, read_json
from converters.errors import CheckpointError, UnsupportedError

MODULES = "modules.json"
_LENGTHS = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_TOKENIZER = "tokenizer_config.json"
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
"""As older sentence-transformers write them; newer ones write the word itself, as `pooling_mode`."""
_HINT = f"without {MODULES} the bundle gives hidden states alone"


@dataclass(frozen=True)
class Sentences:
    """pooling: "mean" of a text's hidden states, or "cls", the first one. normalized: to length 1 afterwards.
    longest: tokens of a text, special ones included; inf where nothing says so."""

    pooling: str
    normalized: bool
    longest: float


def read_sentences(directory: Path) -> Sentences | None:
    """None for a checkpoint without modules.json. Raises UnsupportedError for a module or a pooling that a bundle
    would not compute, and CheckpointError for a damaged file."""
    if not os.path.lexists(directory / MODULES):
        return None
    directory = directory.resolve()
    kinds = [
        (str(each.get("type", "")).rpartition(".")[2], str(each.get("path", "")))
        for each in _modules(directory)
    ]
    names = [kind for kind, _ in kinds]
    if names[:2] != ["Transformer", "Pooling"] or names[2:] not in ([], ["Normalize"]):
        raise UnsupportedError(
            f"{MODULES}: {', '.join(names) or 'nothing'}; only Transformer, Pooling and Normalize can be kept, in "
            "this order",
            hint=_HINT,
        )
    if (directory / _PROMPTS).is_file() and (
        name := read_json(directory, _PROMPTS).get("default_prompt_name")
    ):
        raise UnsupportedError(f"{_PROMPTS}: puts the prompt '{name}' before every text", hint=_HINT)
    pooling = _pooling(directory, f"{kinds[1][1]}/config.json")
    return Sentences(pooling, len(names) == 3, _longest(directory))


def _longest(directory: Path) -> float:
    texts = read_json(directory, _LENGTHS) if (directory / _LENGTHS).is_file() else {}
    if texts.get("do_lower_case"):
        raise UnsupportedError(
            f"{_LENGTHS}: do_lower_case changes texts before the tokenizer does", hint=_HINT
        )
    length = texts.get("max_seq_length")
    if length is None and (directory / _TOKENIZER).is_file():
        length = read_json(directory, _TOKENIZER).get("model_max_length")  # 1e30 where nobody knows
    if length is None:
        return math.inf
    if not isinstance(length, int | float) or length < 1:
        raise CheckpointError(f"{_LENGTHS}: max_seq_length is {length!r}", hint="a number of tokens, or null")
    return length


def _modules(directory: Path) -> list[dict[str, Any]]:
    with os.fdopen(open_inside(directory, MODULES), "rb") as file:
        data = file.read(1 << 20)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CheckpointError(f"{MODULES}: is no list of modules", hint="fetch the checkpoint again")
    return found


def _pooling(directory: Path, name: str) -> str:
    found = read_json(directory, name)
    told = found.get("pooling_mode")
    if told is None:
        told = [
            _MODES.get(key, key) for key, value in found.items() if key.startswith("pooling_mode_") and value
        ]
    modes = [str(mode) for mode in (told if isinstance(told, list) else [told])]
    if len(modes) != 1 or modes[0] not in _MODES.values():
        raise UnsupportedError(
            f"{name}: pooling by {' and '.join(modes) or 'nothing'}; only one of mean and cls can be kept",
            hint=_HINT,
        )
    return modes[0]
