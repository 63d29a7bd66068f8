"""Handles to the tensors of a checkpoint, each checked against the shape that the config promises."""

from __future__ import annotations

from converters.checkpoint import Checkpoint
from converters.decoder import Rows, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.strict_json import shown

_MISMATCH = "config.json and the weights are not of one model: fetch the checkpoint again"


class TensorMap:
    """Makes weights from tensors and remembers which tensors were used."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors = checkpoint.tensors
        self._used: set[str] = set()

    def whole(self, name: str, tensor: str, *shape: int) -> Weight:
        """All of `tensor`, which must have `shape`. Raises CheckpointError that names it otherwise."""
        self.check(tensor, *shape)
        return Weight(name, shape, (Rows(tensor, 0, shape[0]),))

    def padded(self, name: str, tensor: str, rows: int, columns: int, multiple: int) -> Weight:
        """All of `tensor`, with zeros after its columns up to a `multiple`."""
        self.check(tensor, rows, columns)
        zeros = -columns % multiple
        return Weight(name, (rows, columns + zeros), (Rows(tensor, 0, rows),), zero_columns=zeros)

    def point(self, name: str, tensor: str, *shape: int) -> Weight:
        """The matrix that a convolution's kernel of a single point [out, in, 1] is."""
        self.check(tensor, *shape, 1)
        return Weight(name, shape, (Rows(tensor, 0, shape[0]),))

    def has(self, tensor: str) -> bool:
        return tensor in self._tensors

    def without_effect(self, prefix: str) -> None:
        """Mark every tensor below `prefix` as used: parts that a model was saved with and does not compute with."""
        self._used.update(name for name in self._tensors if name.startswith(prefix))

    def shape(self, tensor: str, axes: int) -> tuple[int, ...]:
        """Of a tensor that says a size which no config does. CheckpointError when it is missing or has other axes."""
        info = self._tensors.get(tensor)
        if info is None:
            raise CheckpointError(f"tensor {shown(tensor)} is missing", hint=_MISMATCH)
        if len(info.shape) != axes:
            raise CheckpointError(
                f"tensor {shown(tensor)} has shape {list(info.shape)}, not one of {axes} axes", hint=_MISMATCH
            )
        return info.shape

    def stacked(self, tensor: str, columns: int, rows: dict[str, int]) -> list[Weight]:
        """The weights whose rows stand one below the other in `tensor`: name -> number of rows, in order."""
        self.check(tensor, sum(rows.values()), columns)
        weights: list[Weight] = []
        start = 0
        for name, count in rows.items():
            weights.append(Weight(name, (count, columns), (Rows(tensor, start, start + count),)))
            start += count
        return weights

    def check(self, tensor: str, *shape: int) -> None:
        """Mark `tensor` as used. Raises CheckpointError when it is missing or has another shape."""
        info = self._tensors.get(tensor)
        if info is None:
            raise CheckpointError(f"tensor {shown(tensor)} is missing", hint=_MISMATCH)
        if info.shape != shape:
            raise CheckpointError(
                f"tensor {shown(tensor)} has shape {list(info.shape)}, config.json wants {list(shape)}",
                hint=_MISMATCH,
            )
        self._used.add(tensor)

    def finish(self) -> None:
        """Raise UnsupportedError that names the first tensor that nothing uses."""
        for name in self._tensors:
            if name not in self._used:
                raise UnsupportedError(
                    f"tensor {shown(name)} has no place in this architecture, and may change its output",
                    hint="merge adapters into the weights first, or remove the tensor if it has no effect",
                )
