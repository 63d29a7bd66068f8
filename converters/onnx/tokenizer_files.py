"""The tokenizer of a variant: the checkpoint's own files, as they are."""

from __future__ import annotations

from pathlib import Path

from converters.errors import CheckpointError

REQUIRED = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_MAX_BYTES = 256 << 20


def read_tokenizer_files(checkpoint: Path) -> dict[str, bytes]:
    """Contents by file name. CheckpointError when a required file is missing or one is absurdly large."""
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
    return contents
