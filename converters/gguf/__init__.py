"""The GGUF format, for llama.cpp: one file a variant.

`check` and `context_limit` say beforehand what llama.cpp can do with a model, `planned_bytes` how large the file
will be, `open_writer` writes it in one streamed pass, `open_stored` reads it back for the proof.
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.decoder import Decoder
from converters.gguf.limits import check, context_limit
from converters.gguf.phimoe import rewriting
from converters.gguf.stored import open_stored
from converters.gguf.writer import open_writer, planned_bytes
from converters.writer import Storages
from quant.blocks import FORMATS

BLOCK_FORMATS = frozenset(FORMATS)

__all__ = [
    "BLOCK_FORMATS",
    "check",
    "context_limit",
    "open_stored",
    "open_writer",
    "planned_bytes",
    "planned_files",
    "rewriting",
]


def planned_files(decoder: Decoder, recipe: Storages, context_length: int) -> Mapping[str, int]:
    """One file, without a name of its own; its vocabulary is estimated by its number of tokens."""
    return {"": planned_bytes(decoder, recipe, context_length=context_length)}
