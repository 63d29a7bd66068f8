"""The rooms of the design: imports point down the list of layers, and torch is a guest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(p for room in ("edge", "converters", "quant") for p in (ROOT / room).rglob("*.py"))
# What a room may import of the project beside itself. The modules that both rooms share are the bottom layer.
BOTTOM = {
    "converters.checkpoint",
    "converters.decoder",
    "converters.errors",
    "converters.forward",
    "converters.hybrid",
    "converters.plain",
    "converters.reference",
    "converters.routing",
    "converters.writer",
    "quant.blocks",
    "quant.row_scales",
}
GUESTS = {"torch", "transformers", "accelerate", "peft", "optimum"}
GUEST_ROOMS = ("quant/distill", "quant/prune", "quant/lowrank", "quant/adapters")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports absolutely"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(file: Path) -> str:
    relative = file.relative_to(ROOT).as_posix()
    return "edge/cli" if relative.startswith(("edge/cli/", "edge/__main__")) else relative.split("/")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_down(file: Path) -> None:
    here = layer(file)
    for name in imports(file):
        top = name.split(".")[0]
        if here != "edge/cli":
            assert not name.startswith("edge.cli"), f"{file}: only the CLI knows the CLI; return data instead"
        if here in ("converters", "quant"):
            assert top != "edge", (
                f"{file}: nothing downstream is imported upstream; move {name} down, or pass it in"
            )
        if {here, top} == {"converters", "quant"}:
            allowed = any(name == m or name.startswith(m + ".") for m in BOTTOM) or name in (
                "converters",
                "quant",
            )
            assert allowed, f"{file}: {here} and {top} meet only in {sorted(BOTTOM)}, not in {name}"
        if not file.relative_to(ROOT).as_posix().startswith(GUEST_ROOMS):
            assert top not in GUESTS, (
                f"{file}: {top} is a guest of {GUEST_ROOMS}; convert and chat work without it"
            )


def test_nothing_reads_checkpoints_through_a_memory_map_or_pickle() -> None:
    banned = {"pickle": "safetensors only", "mmap": "positioned reads: mapped pages count as resident memory"}
    for file in FILES:
        for name in imports(file):
            top = name.split(".")[0]
            assert top not in banned, f"{file} imports {top}; use {banned[top]}"
