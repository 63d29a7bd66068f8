"""What an onnxruntime-genai folder says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.errors import UnsupportedError
from edge.runtimes.longrope import switch_length
from edge.runtimes.protocol import DEFAULT_CONTEXT
from edge.runtimes.tokenizer import read_json, token_ids


@dataclass(frozen=True)
class Folder:
    """What a folder's genai_config.json and graph say, and the context that is asked for.

    switch: the length at which a LongRoPE graph changes its factors, None when it has one set.
    recurrent: some layers carry a state from token to token, of which only the last one is there.
    """

    path: Path
    context_length: int
    vocab_size: int
    stop_ids: frozenset[int]
    switch: int | None
    recurrent: bool


def read_folder(path: Path, context_length: int | None) -> Folder:
    """UnsupportedError when a key is missing or the context is more than the folder allows."""
    config = read_json(path / "genai_config.json")
    try:
        model = config["model"]
        own = min(int(config["search"]["max_length"]), int(model["context_length"]), DEFAULT_CONTEXT)
        file = path / model["decoder"]["filename"]
        vocab_size = int(model["vocab_size"])
        recurrent = "past_recurrent_names" in model["decoder"].get("inputs", {})
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"{path / 'genai_config.json'}: {error!r} is missing or no number", hint=f"edge inspect {path}"
        ) from None
    limit = int(model["context_length"])
    if context_length is not None and not 0 < context_length <= limit:
        raise UnsupportedError(
            f"a context of {context_length} tokens is asked for; {path.name} allows 1 to {limit}",
            hint=f"--context {limit}",
        )
    stop_ids = frozenset(token_ids(model.get("eos_token_id")))
    return Folder(path, context_length or own, vocab_size, stop_ids, switch_length(file), recurrent)
