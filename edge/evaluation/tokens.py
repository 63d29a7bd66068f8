"""Which token an artifact or checkpoint puts before a text."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from edge.runtimes.protocol import Dialect
from edge.runtimes.tokenizer import FolderTokenizer, read_json


def first_token(artifact: Path, dialect: Dialect) -> int | None:
    """BOS where the artifact's tokenizer adds one. A folder's files say it, a GGUF's add_bos_token (the dialect)."""
    if (artifact / "tokenizer.json").is_file():
        return folder_first_token(artifact)
    return dialect.prefix[0] if dialect.prefix else None


def folder_first_token(folder: Path) -> int | None:
    """What tokenizer.json puts before a text; a Llama tokenizer's own switch, add_bos_token, wins over it."""
    bos = FolderTokenizer(folder).dialect(frozenset()).bos_token
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = read_json(folder / "tokenizer_config.json")
    switch = config.get("add_bos_token")
    if str(config.get("tokenizer_class", "")).startswith("Llama") and isinstance(switch, bool):
        found: int | None = tokenizer.token_to_id(bos) if switch else None
        return found
    plain: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    whole: list[int] = tokenizer.encode("a").ids
    return whole[0] if whole[:1] != plain[:1] else None
