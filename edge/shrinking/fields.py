"""A table of a TOML file as the arguments of a dataclass, each value held against its annotation."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from converters.errors import UnsupportedError


def arguments(
    kind: type[Any],
    table: Mapping[str, Any],
    where: str,
    *,
    given: Collection[str],
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """`table` as keyword arguments of the dataclass `kind`; paths are made of strings, tuples of lists.

    `given`: fields that do not come from the table; `also`: keys of the whole table that somebody else reads.
    UnsupportedError, which begins with `where`, for a key that is none of these and for a value of another type.
    """
    hints = get_type_hints(kind)
    known = [*(field.name for field in fields(kind) if field.name not in given), *also]
    made = {}
    for key, value in table.items():
        if key not in known:
            raise UnsupportedError(f"{where}: there is no setting '{key}'", hint=f"one of {', '.join(known)}")
        fits, made[key] = _read(hints[key], value)
        if not fits:
            raise UnsupportedError(f"{where}: {key} is {value!r}", hint=f"it takes {_told(hints[key])}")
    return made


def _read(hint: Any, value: Any) -> tuple[bool, Any]:
    """Whether the value is of the annotated type, and the value as that type."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        found = (_read(option, value) for option in get_args(hint) if option is not type(None))
        return next((each for each in found if each[0]), (False, value))
    if origin is Literal:
        return value in get_args(hint), value
    if origin is tuple:
        return isinstance(value, list) and all(isinstance(each, str) for each in value), tuple(value or ())
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping), value
    if hint is Path:
        return isinstance(value, str), Path(str(value))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _told(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_told(option) for option in get_args(hint) if option is not type(None))
    if origin is Literal:
        return ", ".join(repr(each) for each in get_args(hint))
    if origin is tuple:
        return "a list of words"
    if origin is not None:
        return "a table"
    return {Path: "a file's name", float: "a number", int: "a whole number", bool: "true or false"}.get(
        hint, "a word"
    )
