"""The adapters that a conversion is asked to take along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from converters.checkpoint import Checkpoint
from converters.checkpoint_files import read_json
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.peft import CONFIG, WEIGHTS, attach
from converters.strict_json import shown
from edge.bundle import sha256
from quant.recipe import Recipe

MADE_FOR = "recipe.json"
"""Beside an adapter that `edge heal` made: the recipe of the weights that it was made for."""


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


def base_notes(words: Sequence[str], model: str) -> list[str]:
    """A line for each adapter that names another base than `model` (a name or pin): shapes alone cannot tell."""
    notes = []
    for name, directory in map(parse, words):
        base = read_json(directory.resolve(), CONFIG).get("base_model_name_or_path")
        if isinstance(base, str) and base and PurePosixPath(base).name.casefold() not in model.casefold():
            notes.append(f"adapter {name} says that it was trained on {shown(base)}, this is {model}")
    return notes


def recipe_notes(words: Sequence[str], variant: str, recipe: Recipe) -> list[str]:
    """A line for each adapter that makes up for the rounding of another recipe than that of `variant`."""
    notes = []
    for name, directory in map(parse, words):
        if (directory / MADE_FOR).is_file():
            made_for = read_json(directory.resolve(), MADE_FOR)
            if made_for != recipe.to_data():
                notes.append(
                    f"{variant}: adapter {name} was made for weights stored by recipe {shown(made_for.get('name'))}, "
                    f"these are stored by {recipe.name}: it makes up for another rounding"
                )
    return notes


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
