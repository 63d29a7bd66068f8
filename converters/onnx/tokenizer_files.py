"""The tokenizer of a variant: the checkpoint's own files, as they are."""

from __future__ import annotations

import json
from pathlib import Path

from converters.errors import CheckpointError

REQUIRED = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_MAX_BYTES = 256 << 20


def read_tokenizer_files(checkpoint: Path, vocab_size: int) -> dict[str, bytes]:
    """Contents by file name.

    CheckpointError when a required file is missing, one is absurdly large, or the tokenizer has an id that the
    embedding has no row for: onnxruntime would read another row without a word.
    """
    contents: dict[str, bytes] = {}
    for name in (*REQUIRED, *OPTIONAL):
        path = checkpoint / name
        if not path.is_file():
            if name in REQUIRED:
                raise CheckpointError(
                    f"{path} is missing: onnxruntime-genai reads the tokenizer from it",
                    hint="fetch the checkpoint again, with its tokenizer files",
                )
            continue
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(
                f"{path} is larger than {_MAX_BYTES >> 20} MiB", hint="this is no tokenizer: fetch it again"
            )
        contents[name] = path.read_bytes()
    if (largest := _largest_id(contents[REQUIRED[0]], checkpoint / REQUIRED[0])) >= vocab_size:
        raise CheckpointError(
            f"{checkpoint / REQUIRED[0]} has the token id {largest}, the embedding has {vocab_size} rows",
            hint="config.json and the tokenizer are not of one model: fetch the checkpoint again",
        )
    return contents


def _largest_id(raw: bytes, path: Path) -> int:
    try:
        data = json.loads(raw)
        vocabulary = data["model"]["vocab"]
        # A unigram vocabulary is a list of pairs, numbered by position.
        ids = [len(vocabulary) - 1] if isinstance(vocabulary, list) else [int(i) for i in vocabulary.values()]
        return max([*ids, *(int(token["id"]) for token in data.get("added_tokens") or [])], default=-1)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {type(error).__name__} {error}", hint="fetch it again"
        ) from None
