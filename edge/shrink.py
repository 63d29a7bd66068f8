"""`edge shrink PLAN`: a chain of steps from a checkpoint to a bundle, each published whole, resumed where it stopped.

A plan is a TOML file: `model`, a `text` for the steps that train (a path beside the plan), and [[step]] tables with
`do` and the settings of that command under their own names:

    model = "smollm2-135m-instruct"
    text = "training.txt"

    [[step]]
    do = "prune"
    neurons = 0.75
    steps = 500

    [[step]]
    do = "convert"
    targets = ["android", "cpu"]
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge.bundle import sha256, write_json
from edge.progress import Progress
from edge.shrinking.steps import STEPS, Job, adapter_of
from edge.sources import resolve
from edge.sources.cache import checkpoint_key

KEYS = "steps.json"
_NO_CHECKPOINT = ("convert",)


@dataclass(frozen=True)
class Step:
    """`settings`: those of the command `kind`."""

    kind: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ShrinkPlan:
    """See the module. text: None where no step is given one by the plan."""

    model: str
    text: Path | None
    steps: tuple[Step, ...]


def read_plan(file: Path) -> ShrinkPlan:
    """UnsupportedError, which names the step, for a file that is no plan, a setting that no step has, and steps that
    cannot follow each other."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnsupportedError(
            f"plan {file} cannot be read: {error.strerror}", hint=f"try: ls -l {file}"
        ) from None
    except ValueError as error:
        raise UnsupportedError(f"plan {file} is no TOML: {error}", hint=_EXAMPLE) from None
    model, text, tables = data.get("model"), data.get("text"), data.get("step") or []
    sound = isinstance(tables, list) and bool(tables) and all(isinstance(table, dict) for table in tables)
    if set(data) - {"model", "text", "step"} or not isinstance(model, str) or not sound:
        raise UnsupportedError(
            f"{file} is no plan: it holds a model, perhaps a text, and [[step]] tables", hint=_EXAMPLE
        )
    if not isinstance(text, str | None):
        raise UnsupportedError(f"{file}: text is {text!r}", hint="it takes a file's name")
    steps = []
    for i, table in enumerate(tables, start=1):
        kind = table.pop("do", None)
        if kind not in STEPS:
            raise UnsupportedError(f"step {i}: do is {kind!r}", hint=f"one of {', '.join(STEPS)}")
        STEPS[kind].check(table, f"step {i} ({kind})")
        steps.append(Step(kind, table))
    _check_order(steps)
    beside = file.absolute().parent
    # A directory beside the plan goes before a name in models.lock.
    model = str(beside / model) if (beside / model).is_dir() else model
    return ShrinkPlan(model, beside / text if text else None, tuple(steps))


_EXAMPLE = 'model = "NAME" and then [[step]] with do = "convert" and targets = ["cpu"] is the shortest plan'


def _check_order(steps: list[Step]) -> None:
    for i, (before, after) in enumerate(pairwise(steps), start=2):
        if before.kind in _NO_CHECKPOINT:
            raise UnsupportedError(
                f"step {i} ({after.kind}) follows {before.kind}, which leaves no checkpoint",
                hint="let convert be the last step; it takes several targets",
            )
        if before.kind == "heal" and after.kind != "convert":
            raise UnsupportedError(
                f"step {i} ({after.kind}) follows heal, whose adapter it would lose",
                hint="heal just before convert",
            )


def shrink(plan: ShrinkPlan, output: Path, progress: Progress) -> list[Path]:
    """Run what is not there yet of the plan; the directories of its steps, OUTPUT/1-prune and so on.

    A step that is there was published whole, by this plan: of another plan's it is an UnsupportedError. Raises what the
    steps raise; those before stay.
    """
    keys = _keys(plan, progress)
    places = [output / f"{i}-{step.kind}" for i, step in enumerate(plan.steps, start=1)]
    known = _known(output)
    for place, key in zip(places, keys, strict=True):
        if place.exists() and known.get(place.name) != key:
            raise UnsupportedError(
                f"{place} was made by another plan, model or text",
                hint="remove it, or name another place with -o",
            )
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / KEYS, {place.name: key for place, key in zip(places, keys, strict=True)})
    model, adapter = plan.model, None
    for step, place in zip(plan.steps, places, strict=True):
        if place.exists():
            progress.note(f"{place} is there already")
        else:
            progress.note(f"{place.name} of {len(places)} steps")
            STEPS[step.kind].run(Job(step.settings, model, adapter, place, plan.text), progress)
        model, adapter = str(place), adapter_of(step.kind, place)
    return places


def _keys(plan: ShrinkPlan, progress: Progress) -> list[str]:
    """Of each step, a hash of all that it depends on: its settings, the text, and the steps before it."""
    with Checkpoint.open(resolve(plan.model, progress=progress).directory) as checkpoint:
        key = checkpoint_key(checkpoint)
    text = sha256(plan.text) if plan.text else None
    keys = []
    for step in plan.steps:
        key = hashlib.sha256(
            json.dumps([key, text, step.kind, step.settings], sort_keys=True).encode()
        ).hexdigest()
        keys.append(key)
    return keys


def _known(output: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((output / KEYS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
