"""The adapters that a conversion is asked to take along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.peft import CONFIG, WEIGHTS, attach
from edge.bundle import sha256


def parse(word: str) -> tuple[str, Path]:
    """Name and directory: of NAME=DIR, or of DIR, which is then called as its last part is."""
    name, equals, rest = word.partition("=")
    directory = Path(rest if equals else word).expanduser()
    return (name if equals else directory.resolve().name), directory


def with_adapters(checkpoint: Checkpoint, decoder: Decoder, words: Sequence[str]) -> Decoder:
    """The decoder with the adapters that `words` name, opened beside the checkpoint.

    UnsupportedError for two of one name; errors as `converters.peft.attach`.
    """
    for name, directory in map(parse, words):
        if name in {lora.name for lora in decoder.adapters}:
            raise UnsupportedError(
                f"two adapters are called {name}", hint="--adapter NAME=DIR gives one another name"
            )
        decoder = attach(checkpoint, decoder, directory, name)
    return decoder


def adapter_records(decoder: Decoder, words: Sequence[str]) -> list[dict[str, Any]]:
    """What a manifest says of each: name, SHA-256 of its files, how many layers it changes, and by what rank."""
    loras = {lora.name: lora for lora in decoder.adapters}
    return [
        {
            "name": name,
            "layers": len(loras[name].pairs),
            "largest_rank": max(pair.a.rows for pair in loras[name].pairs),
            "files": {file: sha256(directory / file) for file in (CONFIG, WEIGHTS)},
        }
        for name, directory in map(parse, words)
    ]
