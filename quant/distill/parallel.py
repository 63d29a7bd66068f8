"""What the processes of one training tell each other: shares, gradients, losses, and when to stop.

Every process holds the whole model and computes a part of each batch. A loss is a mean over its own items (tokens,
positions, examples), of which the parts hold different numbers, so a part's mean counts by its share of the items;
the sum of the processes' gradients is then that of the whole batch's mean. All else of a step (clipping, optimizer)
is done by each process, on equal numbers.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from converters.errors import UnsupportedError
from quant.distill.launch import Place, place

BUCKET = 1 << 23
"""Numbers that are exchanged at once: fewer messages than parameters, and no second copy of all gradients."""


@dataclass(frozen=True)
class Team:
    """The processes of this training, seen from the one at `here`; alone, nothing is exchanged."""

    here: Place
    device: torch.device

    def seed(self, seed: int) -> int:
        """A seed of this process's own, so that no two draw the same dropout; the first one's is `seed`."""
        if self.here.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed, self.here.rank]).generate_state(1, np.uint64)[0])

    def begin(self, model: torch.nn.Module, first: int) -> None:
        """Give all processes the first one's weights. UnsupportedError unless all begin at step `first`."""
        if self.here.size == 1:
            return
        found = self._all(first)
        if set(found) != {first}:
            raise UnsupportedError(
                f"the processes go on from different steps: {', '.join(map(str, found))}",
                hint="the state lies beside the output: give a place that all machines share with -o",
            )
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.detach(), 0)

    def shares(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Of all processes' items under each name this one's share."""
        totals = self.total(list(counts.values()))
        return {name: count / all_ for (name, count), all_ in zip(counts.items(), totals, strict=True)}

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over the processes, in float64."""
        if self.here.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(summed)
        return [float(v) for v in summed.cpu()]

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, the same bits in each of them."""
        if self.here.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([grad.flatten() for grad in bucket])
            distributed.all_reduce(flat)
            for grad, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                grad.copy_(summed.view_as(grad))

    def any(self, here: bool) -> bool:
        """Whether it holds in one of the processes."""
        return here if self.here.size == 1 else self.total([here])[0] > 0

    def wait(self) -> None:
        """Until all processes are here."""
        self.total([0.0])

    def generators(self) -> list[list[torch.Tensor]]:
        """The state of torch's generators in each process."""
        return self._all([torch.get_rng_state(), *torch.cuda.get_rng_state_all()])

    def _all(self, mine: Any) -> list[Any]:
        if self.here.size == 1:
            return [mine]
        found: list[Any] = [None] * self.here.size
        distributed.all_gather_object(found, mine)
        return found


def share(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """This process's part of a step's examples: consecutive, and all parts together are `indices`."""
    here = place()
    return np.array_split(indices, here.size)[here.rank]


def join(device: torch.device) -> Team:
    """The team of this process: it waits for the others at the first call. `device`: where the model is."""
    here = place()
    if here.size > 1:
        _start(device.type == "cpu")
    return Team(here, device)


@cache
def _start(cpu: bool) -> None:
    from accelerate import PartialState

    state = PartialState(cpu=cpu)  # chooses the backend (gloo, NCCL), and this process's GPU
    atexit.register(state.destroy_process_group)


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Consecutive tensors of one type that hold at most BUCKET numbers together, or a larger one alone."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        held = sum(t.numel() for t in bucket)
        if bucket and (held + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
