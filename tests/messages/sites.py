"""Where the code makes an EdgeError: found in the source, so that no message is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters import errors
from converters.errors import EdgeError
from tests.messages import ROOT

ERRORS = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, EdgeError)}


@dataclass(frozen=True)
class Site:
    """A call that makes an error: of its class, or of a function that returns one."""

    file: str
    first: int
    last: int
    text: str


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for room in ("edge", "converters", "quant"):
        for file in sorted((ROOT / room).rglob("*.py")):
            yield str(file), ast.parse(file.read_text(encoding="utf-8"))


def find() -> list[Site]:
    """Every site of the three rooms. Inside a function that returns an error only its callers are sites."""
    trees = list(_trees())
    makers: dict[str, set[str]] = {}
    for file, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and set(_returns(node)) & ERRORS:
                makers.setdefault(node.name, set()).add(file)
    return [site for file, tree in trees for site in _sites(file, tree, makers)]


def _returns(function: ast.FunctionDef) -> list[str]:
    return ast.unparse(function.returns).split(" | ") if function.returns else []


def _sites(file: str, tree: ast.Module, makers: dict[str, set[str]]) -> Iterator[Site]:
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, in_maker = todo.pop()
        if isinstance(node, ast.FunctionDef):
            in_maker = node.name in makers and file in makers[node.name]
        if isinstance(node, ast.Call) and not in_maker:
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ERRORS or name in makers:
                short = Path(file).relative_to(ROOT).as_posix()
                yield Site(short, node.lineno, node.end_lineno or node.lineno, ast.unparse(node)[:120])
        todo += [(child, in_maker) for child in ast.iter_child_nodes(node)]
