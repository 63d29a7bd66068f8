"""Hugging Face tokenizer files of an artifact folder: encode, raw bytes of a token, dialect."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.runtimes.protocol import Dialect

END_TEXTS = (
    "<|end|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<end_of_turn>", "<|end_of_text|>",
    "<|return|>", "</s>",
)  # fmt: skip
"""Added tokens that end a turn or a text in published models: where there is one, it stops an answer."""

_MAX_JSON = 256 << 20
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's byte-level alphabet: printable Latin-1 stands for itself, the rest is moved above U+0100."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {chr(b): b for b in kept} | {chr(0x100 + i): b for i, b in enumerate(moved)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; {} when the file is not there."""
    if not path.exists():
        return {}
    if path.stat().st_size > _MAX_JSON:
        raise UnsupportedError(
            f"{path}: {path.stat().st_size} bytes of JSON are too many", hint="edge verify BUNDLE"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsupportedError(f"{path}: not valid JSON ({error})", hint="edge verify BUNDLE") from None
    if not isinstance(value, dict):
        raise UnsupportedError(f"{path}: the top level is not an object", hint="edge verify BUNDLE")
    return value


class FolderTokenizer:
    """tokenizer.json and its neighbours. Byte-level BPE and byte-fallback (SentencePiece) decoders."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        path = folder / "tokenizer.json"
        described = read_json(path)
        if not described:
            raise UnsupportedError(f"{path}: the tokenizer is missing", hint="edge convert ... writes it")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception for every malformed file
            raise UnsupportedError(f"{path}: {error}", hint="edge verify BUNDLE") from None
        kinds = _decoder_kinds(described.get("decoder"))
        self._bytes = _byte_of_character() if "ByteLevel" in kinds else None
        if self._bytes is None and not kinds & {"ByteFallback", "Metaspace", "Replace"}:
            raise UnsupportedError(
                f"{path}: decoder {sorted(kinds) or 'none'} is not one that gives raw bytes",
                hint="use a model with a byte-level or byte-fallback tokenizer",
            )
        added = described.get("added_tokens") or []
        self._special: dict[int, str] = {t["id"]: t["content"] for t in added if t.get("special")}
        self._plain: dict[int, str] = {t["id"]: t["content"] for t in added if not t.get("special")}

    def encode(self, text: str, *, special: bool) -> list[int]:
        self._tokenizer.encode_special_tokens = not special
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        if token in self._special:
            return b""
        if token in self._plain:
            return self._plain[token].encode()
        text = self._tokenizer.id_to_token(token)
        if text is None:  # padding rows of the vocabulary
            return b""
        if self._bytes is not None:
            return bytes(self._bytes[c] for c in text if c in self._bytes)
        byte = _BYTE_TOKEN.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()

    def dialect(self, stop_ids: frozenset[int]) -> Dialect:
        """`stop_ids`: those that the engine's own config names; the tokenizer files add theirs."""
        config = read_json(self._folder / "tokenizer_config.json")
        generation = read_json(self._folder / "generation_config.json")
        template = _template(self._folder, config)
        bos, eos = _text(config.get("bos_token")), _text(config.get("eos_token"))
        stops = set(stop_ids) | token_ids(generation.get("eos_token_id"))
        added = self._special | self._plain  # Phi-3 has </s> without the special flag
        stops |= {i for i, text in added.items() if text in END_TEXTS or text == eos}
        prefix: tuple[int, ...] = ()
        if template is None and bos and config.get("add_bos_token"):
            first = self._tokenizer.token_to_id(bos)
            prefix = () if first is None else (first,)
        return Dialect(template, bos, eos, prefix, frozenset(stops), tuple(sorted(self._special.values())))


def token_ids(value: object) -> set[int]:
    """eos_token_id as configs write it: absent, one id, or a list of ids."""
    if isinstance(value, int):
        return {value}
    return {v for v in value if isinstance(v, int)} if isinstance(value, list) else set()


def _decoder_kinds(decoder: object) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    kinds = {str(decoder.get("type"))}
    for part in decoder.get("decoders") or ():
        kinds |= _decoder_kinds(part)
    return kinds


def _text(token: object) -> str:
    """A special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else ""


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    value = config.get("chat_template")
    if isinstance(value, list):  # several named templates: the one for plain chat
        named = {v.get("name"): v.get("template") for v in value if isinstance(v, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
