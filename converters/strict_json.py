"""JSON from strangers: one object, bounded before it is parsed, nothing in it silently dropped.

Python's parser keeps the last of two equal keys, takes NaN, guesses UTF-16, and turns 25 MB of "[]," into
half a gigabyte of lists. A file that came with a checkpoint gets none of that.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from converters.errors import CheckpointError

MAX_BYTES = 25_000_000
"""Longest JSON that is read. Parsing can take eight times as much: one emoji makes Python store every
character of the text, and again of a string in it, in four bytes."""
MAX_VALUES = 1_000_000
"""Most JSON values in one file. A tensor takes about eight, so a shard may hold some 100 000 tensors."""

DAMAGED = "the checkpoint is damaged: fetch it again (edge pull NAME) or re-save it as safetensors"


def shown(text: object) -> str:
    """`text` quoted on one short, printable line: a hostile name cannot break the line or the terminal."""
    plain = str(text)
    quoted = json.dumps(plain, ensure_ascii=not plain.isprintable())
    return quoted if len(quoted) <= 240 else quoted[:200] + '..."'


def parse_object(raw: bytearray, file_name: str) -> dict[str, Any]:
    """The JSON object in `raw`. Raises CheckpointError that names `file_name` for anything else."""
    values = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    if values > MAX_VALUES:
        raise CheckpointError(
            f"{file_name}: too many JSON values ({values}, at most {MAX_VALUES})", hint=DAMAGED
        )
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise CheckpointError(f"{file_name}: not valid JSON: nested too deep", hint=DAMAGED) from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file_name}: not UTF-8 (byte {error.start})", hint=DAMAGED) from None
    except ValueError as error:
        raise CheckpointError(f"{file_name}: not valid JSON: {error}", hint=DAMAGED) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file_name}: not a JSON object", hint=DAMAGED)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {shown(key)} stands twice in one object")
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {shown(text)} is too large")
    return value
