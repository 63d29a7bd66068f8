"""Where the inputs of the layers stay between the forward and the backward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from converters.forward import Floats


class Store(Protocol):
    """Keeps float32 arrays by layer; `get` may forget what it gives."""

    def put(self, index: int, values: Floats) -> None: ...

    def get(self, index: int) -> Floats: ...


class InMemory:
    """A copy of each."""

    def __init__(self) -> None:
        self._kept: dict[int, Floats] = {}

    def put(self, index: int, values: Floats) -> None:
        self._kept[index] = values.copy()

    def get(self, index: int) -> Floats:
        return self._kept.pop(index)


class OnDisk:
    """One .npy file each in `directory`, which the caller makes and removes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, index: int, values: Floats) -> None:
        np.save(self._directory / f"{index}.npy", values, allow_pickle=False)

    def get(self, index: int) -> Floats:
        path = self._directory / f"{index}.npy"
        values: Floats = np.load(path, allow_pickle=False)
        path.unlink()
        return values
