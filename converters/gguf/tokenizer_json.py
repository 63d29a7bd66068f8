"""Hugging Face tokenizer files from the vocabulary of a GGUF (byte-level BPE, pre-tokenizer `smollm`)."""

from __future__ import annotations

import json
from typing import Any

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf

_CONTROL = 3
_NORMAL = 1
_HINT = "take the model's safetensors, which bring their own tokenizer.json"


def tokenizer_files(source: Gguf) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json, and chat_template.jinja if there is one.

    Raises UnsupportedError for any other kind of tokenizer (`tokenizer.ggml.model`, `tokenizer.ggml.pre`):
    a pre-tokenizer that is nearly right gives nearly right token ids, silently.
    """
    meta = source.metadata
    kind = (meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise UnsupportedError(f"{source.path}: tokenizer {kind[0]}/{kind[1]}, not gpt2/smollm", hint=_HINT)
    for key in (
        "tokenizer.ggml.add_space_prefix",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
    ):
        if meta.get(key, False) is not False:
            raise UnsupportedError(f"{source.path}: key '{key}' is set", hint=_HINT)
    tokens, types = _strings(source, "tokenizer.ggml.tokens"), meta.get("tokenizer.ggml.token_type")
    merges = [merge.split(" ") for merge in _strings(source, "tokenizer.ggml.merges")]
    if not isinstance(types, list) or len(types) != len(tokens) or not set(types) <= {_NORMAL, _CONTROL}:
        raise CheckpointError(f"{source.path}: key 'tokenizer.ggml.token_type' does not fit", hint=_HINT)
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or any(len(m) != 2 or "".join(m) not in vocab for m in merges):
        raise CheckpointError(f"{source.path}: doubled tokens, or merges outside the vocabulary", hint=_HINT)
    special = [i for i, type_ in enumerate(types) if type_ == _CONTROL]
    files = {
        "tokenizer.json": _tokenizer(vocab, merges, [(i, tokens[i]) for i in special]),
        "tokenizer_config.json": _config(source, tokens, special),
        "special_tokens_map.json": _named_tokens(source, tokens),
    }
    out = {
        name: (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode() for name, data in files.items()
    }
    template = meta.get("tokenizer.chat_template")
    if isinstance(template, str):
        out["chat_template.jinja"] = template.encode()
    return out


def _strings(source: Gguf, key: str) -> list[str]:
    value = source.metadata.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise CheckpointError(f"{source.path}: key '{key}' is missing or no list of strings", hint=_HINT)
    return value


def _added(content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **flags}


def _tokenizer(
    vocab: dict[str, int], merges: list[list[str]], special: list[tuple[int, str]]
) -> dict[str, Any]:
    """The file format of the `tokenizers` library, version 1.0."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **_added(token)} for i, token in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            # llama.cpp's `smollm` splits off every \p{N} first, then applies GPT-2's expression.
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _named_tokens(source: Gguf, tokens: list[str]) -> dict[str, str]:
    named = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = source.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token is None:
            continue
        if not isinstance(token, int) or not 0 <= token < len(tokens):
            raise CheckpointError(
                f"{source.path}: key 'tokenizer.ggml.{key}_token_id' is {token}", hint=_HINT
            )
        named[f"{name}_token"] = tokens[token]
    return named


def _config(source: Gguf, tokens: list[str], special: list[int]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.metadata.get("llama.context_length"),
        **_named_tokens(source, tokens),
        "added_tokens_decoder": {str(i): _added(tokens[i]) for i in special},
    }
    template = source.metadata.get("tokenizer.chat_template")
    # Both places: readers before transformers 4.43 know only this key.
    return config | ({"chat_template": template} if isinstance(template, str) else {})
