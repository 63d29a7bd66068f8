"""Which of the processes that `accelerate launch` (or torchrun) started this one is. Nothing is started here."""

from __future__ import annotations

import os
from dataclasses import dataclass

from converters.errors import UnsupportedError

# What accelerate reads too, of torchrun and of the MPI launchers.
_RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")
_OTHER_WAYS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@dataclass(frozen=True)
class Place:
    """rank: this process among all `size`; local: among those of its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0


def place() -> Place:
    """From the environment; the only process where nothing was launched."""
    return Place(_first(_RANK, 0), _first(_SIZE, 1), _first(_LOCAL, 0))


def check_together(batch: int) -> None:
    """UnsupportedError where the launch asks for what is not done here, or gives a process no example."""
    here = place()
    ways = [name for key, name in _OTHER_WAYS.items() if os.environ.get(key, "").lower() == "true"]
    if ways:
        raise UnsupportedError(
            f"accelerate is told to use {ways[0]}, and here every process holds the whole model",
            hint="try: accelerate launch --multi_gpu -m edge distill ..",
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "fp32"):
        raise UnsupportedError(
            f"accelerate is told to use mixed precision {precision}, which edge distill decides itself",
            hint="try: accelerate launch --mixed_precision no .. -m edge distill --bf16 ..",
        )
    if batch < here.size:
        raise UnsupportedError(
            f"a batch of {batch} leaves some of the {here.size} processes without an example",
            hint=f"--batch {here.size} or more: it is the batch of all processes together",
        )


def check_alone(what: str) -> None:
    """UnsupportedError where several processes were launched for what one process does."""
    if place().size > 1:
        raise UnsupportedError(
            f"{what} runs in one process, and {place().size} were launched",
            hint="start it without accelerate launch; `edge distill` (but for --method moe, moebert) takes several",
        )


def _first(names: tuple[str, ...], missing: int) -> int:
    return int(next((os.environ[name] for name in names if name in os.environ), missing))
