"""What an interrupted training leaves on disk: one file, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from converters.errors import CheckpointError, UnsupportedError


class Stateful(Protocol):
    """What modules, optimizers and a method's own statistics have in common."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save_state(
    path: Path,
    parts: Mapping[str, Stateful],
    *,
    step: int,
    run: str,
    generators: Sequence[Sequence[torch.Tensor]] = (),
) -> None:
    """Write `parts`, the number of steps done and torch's generators to `path`: hidden sibling, fsync, rename.

    `run` says which run it is; `load_state` refuses the state of another. generators: for each process of the run the
    states of torch's (CPU, then GPUs).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.partial")
    data = {"run": run, "step": step, "parts": {name: part.state_dict() for name, part in parts.items()}}
    data["generators"] = [list(each) for each in generators]
    with hidden.open("wb") as file:
        torch.save(data, file)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_state(path: Path, parts: Mapping[str, Stateful], *, run: str, rank: int = 0) -> int:
    """Put back what `save_state` wrote, of the generators those of process `rank`, and return the number of steps
    done; 0 when there is no file.

    Raises CheckpointError for a damaged file and UnsupportedError for the state of another run. Nothing in the file
    is executed (`weights_only`).
    """
    if not path.exists():
        return 0
    remove = f"start again without it: rm {path}"
    with path.open("rb"):
        pass  # a file that may not be read is no damaged one
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        found, step, generators, states = data["run"], int(data["step"]), data["generators"], data["parts"]
    except Exception:  # torch names no closed set of what a damaged archive raises
        raise CheckpointError(f"{path} is damaged, or no state of a training", hint=remove) from None
    if found != run or set(states) != set(parts):
        raise UnsupportedError(
            f"{path} is the state of a run with other settings or inputs",
            hint=f"give the same options as then, or {remove}",
        )
    for name, part in parts.items():
        part.load_state_dict(states[name])
    mine = generators[rank]
    torch.set_rng_state(mine[0])
    if torch.cuda.is_available() and len(mine) == 1 + torch.cuda.device_count():
        torch.cuda.set_rng_state_all(mine[1:])
    return step
