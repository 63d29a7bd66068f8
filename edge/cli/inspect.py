"""`edge inspect`: what is this, and what is in it?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli import console

# Too long for a page; --json has them.
_COUNTED = {"tensors", "files"}
_LISTED = 8


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Directory or file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, each tensor too.")] = False,
) -> None:
    """Show what is inside a checkpoint, GGUF, ONNX folder or bundle.

    Reads headers only; no weight is loaded and nothing is run.
    """
    from edge.inspection import inspect as run

    found = run(path)
    if as_json:
        console.write_json(found)
        return
    console.write(f"{console.clean(found['path'])}: {found['kind'].replace('_', ' ')}")
    for line in _lines(found, 1):
        console.write(line)


def _lines(facts: dict[str, Any], depth: int) -> Iterator[str]:
    """`key: value` lines, nested ones indented; bytes with their unit."""
    for key, value in facts.items():
        if key in _COUNTED and isinstance(value, (list, dict)):
            yield f"{'  ' * depth}{key}: {len(value)}"
        elif value is None or key in ("path", "kind"):
            continue
        elif isinstance(value, dict) and set(value) == {"length", "first"}:
            yield f"{'  ' * depth}{console.clean(key)}: {_inline(value)}"
        elif isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            yield f"{'  ' * depth}{console.clean(key)}:"
            for name, inner in value.items():
                yield f"{'  ' * (depth + 1)}{console.clean(str(name))}: {_inline(inner)}"
        elif isinstance(value, dict):
            yield f"{'  ' * depth}{console.clean(key)}:"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{'  ' * depth}{console.clean(key)}:"
            for item in value[:_LISTED]:
                yield from _item(item, depth + 1)
            if len(value) > _LISTED:
                yield f"{'  ' * (depth + 1)}... {len(value) - _LISTED} more, see --json"
        else:
            yield f"{'  ' * depth}{console.clean(key)}: {_value(key, value)}"


def _item(item: dict[str, Any], depth: int) -> Iterator[str]:
    """An element of a list: its name or path, then the rest, on one line where it holds no tables."""
    name = item.get("name") or item.get("file") or Path(item.get("path", "-")).name
    rest = {k: v for k, v in item.items() if k not in ("name", "file", "path", "kind")}
    if any(isinstance(v, dict) for v in rest.values()):
        yield f"{'  ' * depth}{console.clean(str(name))}:"
        yield from _lines(rest, depth + 1)
    else:
        yield f"{'  ' * depth}{console.clean(str(name))}: {_inline(rest)}"


def _inline(facts: dict[str, Any]) -> str:
    if set(facts) == {"length", "first"}:
        return f"{facts['length']} values, first {_value('', facts['first'])}"
    return ", ".join(f"{console.clean(k)} {_value(k, v)}" for k, v in facts.items() if v is not None)


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key in ("bytes", "bytes_used"):
        return console.size(value)
    if isinstance(value, list):
        return console.clean(" x ".join(map(str, value)) if key == "shape" else ", ".join(map(str, value)))
    return console.clean(str(value))
