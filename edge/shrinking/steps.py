"""What each kind of step in a plan runs. A step takes a checkpoint and leaves one; `convert` leaves a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.convert import ConvertRequest, convert
from edge.distill import distill
from edge.distilling import moebert
from edge.distilling.moebert_plan import MoebertRequest
from edge.distilling.moebert_plan import plan as plan_moebert
from edge.distilling.plan import DistillRequest
from edge.distilling.plan import plan as plan_distill
from edge.encoder.convert import convert as convert_encoder
from edge.encoder.exporters import is_encoder
from edge.encoder.plan import plan as plan_encoder
from edge.heal import ADAPTER, HealRequest, heal
from edge.plan import find
from edge.plan import plan as plan_convert
from edge.progress import Progress
from edge.prune import PruneRequest, prune
from edge.shrinking.fields import arguments
from quant.prune.settings import UNITS, Settings

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One step to be run. model: what it takes, a name or directory; adapter: what an earlier step made beside it."""

    settings: Table
    model: str
    adapter: Path | None
    output: Path
    text: Path | None


@dataclass(frozen=True)
class Kind:
    """`check` raises UnsupportedError, beginning with its second argument, for settings of no such step."""

    check: Callable[[Table, str], dict[str, Any]]
    run: Callable[[Job, Progress], None]


def _check_prune(table: Table, where: str) -> dict[str, Any]:
    units = {key: share for key, share in table.items() if key in UNITS}
    rest = {key: value for key, value in table.items() if key not in UNITS}
    return {"keep": None, "units": units} | arguments(Settings, rest, where, given=("units",), also=UNITS)


def _prune(job: Job, progress: Progress) -> None:
    settings = Settings(**_check_prune(job.settings, "prune"))
    prune(PruneRequest(job.model, job.output, settings, job.text), progress)


def _check_distill(table: Table, where: str) -> dict[str, Any]:
    if table.get("method") == "moebert":
        rest = {key: value for key, value in table.items() if key != "method"}
        return arguments(MoebertRequest, rest, where, given=("teacher", "output"), also=("method",))
    return arguments(DistillRequest, table, where, given=("teacher", "output"))


def _distill(job: Job, progress: Progress) -> None:
    made = {"text": job.text or Path("text")} | _check_distill(job.settings, "distill")
    if job.settings.get("method") == "moebert":
        parts = MoebertRequest(teacher=job.model, output=job.output, **made)
        moebert.distill(plan_moebert(parts, progress), progress)
        return
    request = DistillRequest(teacher=job.model, output=job.output, **made)
    distill(plan_distill(request, progress), progress)


def _check_heal(table: Table, where: str) -> dict[str, Any]:
    return arguments(HealRequest, table, where, given=("model", "output"))


def _heal(job: Job, progress: Progress) -> None:
    made = {"text": job.text} | _check_heal(job.settings, "heal")
    heal(HealRequest(model=job.model, output=job.output, **made), progress)


def _check_convert(table: Table, where: str) -> dict[str, Any]:
    return arguments(ConvertRequest, table, where, given=("checkpoint", "output"))


def _convert(job: Job, progress: Progress) -> None:
    made = _check_convert(job.settings, "convert")
    healed = [f"healed={job.adapter}"] if job.adapter else []
    made["adapters"] = (*made.get("adapters", ()), *healed)
    request = ConvertRequest(checkpoint=job.model, output=job.output, **made)
    with find(request, progress) as source:
        if is_encoder(source.directory):
            convert_encoder(plan_encoder(request, source), progress)
        else:
            convert(plan_convert(request, progress, source=source), progress)


STEPS: Mapping[str, Kind] = {
    "prune": Kind(_check_prune, _prune),
    "distill": Kind(_check_distill, _distill),
    "heal": Kind(_check_heal, _heal),
    "convert": Kind(_check_convert, _convert),
}
"""By what a plan calls them."""


def adapter_of(kind: str, output: Path) -> Path | None:
    """What a finished step left beside its checkpoint."""
    return output / ADAPTER if kind == "heal" else None
