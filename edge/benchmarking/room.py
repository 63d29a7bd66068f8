"""Whether the memory suffices, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.errors import MachineError
from edge import machine
from edge.benchmarking.subject import Contender


def check_memory(contenders: Sequence[Contender]) -> None:
    """MachineError when the weights alone exceed the free memory: a model that is paged in anew for every token
    measures the disk."""
    needed = sum(_bytes(path) for path in {each.path.resolve() for each in contenders})
    free = machine.memory()[1]
    if needed > free:
        raise MachineError(
            f"{' and '.join(each.name for each in contenders)}: {needed / 1e9:.1f} GB of weights, and "
            f"{free / 1e9:.1f} GB of memory are free",
            hint="close other programs, or bench a smaller artifact",
        )


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
