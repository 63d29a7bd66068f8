"""`edge distill`: a checkpoint teaches a smaller one. torch is met only inside `distill`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import UnsupportedError
from edge.distilling.plan import DistillPlan
from edge.progress import Progress, Silent
from edge.sources.cache import sha256_of
from edge.staging import staging
from quant.distill.launch import place

if TYPE_CHECKING:
    from quant.distill.camero import Camero
    from quant.distill.run import Run
    from quant.distill.training import Report

RECORD = "shrink.json"
SIDE_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*",
    "generation_config.json", "LICENSE*", "NOTICE*",
)  # fmt: skip
NOTES = 10
"""Lines with the losses that a stage of training leaves."""


def distill(plan: DistillPlan, progress: Progress | None = None) -> dict[str, Any]:
    """Train and publish the student with its record; returns the record. The same plan goes on where it was stopped.

    Under `accelerate launch` every process calls this; the first one publishes.
    Raises UnsupportedError where torch is missing, TrainingError when the training diverges, and what staging raises.
    """
    progress = progress or Silent()
    progress.stage("prepare")
    try:
        from quant.distill.run import distill_checkpoint
        from quant.distill.training import has_bf16
    except ImportError as error:
        raise UnsupportedError(
            f"edge distill needs {error.name}, which is not installed", hint="pip install 'edge[shrink]'"
        ) from None
    if plan.request.bf16 and not has_bf16(plan.request.device):
        progress.note("this machine computes bfloat16 by emulation; float32 is faster")
    output, first = plan.request.output, place().rank == 0
    record = _record(plan)
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    state = output.absolute().parent / f".{output.absolute().name}.edge-distill"
    # Of processes launched together the first one writes.
    with staging(output) if first else nullcontext() as partial:
        if state.exists():
            progress.note(f"going on from {state}")
        try:
            losses = distill_checkpoint(_run(plan), partial, state=state, name=name, report=Teller(progress))
        except KeyboardInterrupt:
            if first and state.exists():
                progress.note(f"the state is kept in {state}; the same command goes on from there")
            raise
        record["losses"] = losses
        if partial is None:
            return record
        for pattern in SIDE_FILES:
            for file in (plan.request.student or plan.directory).glob(pattern):
                shutil.copyfile(file, partial / file.name)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(state, ignore_errors=True)
    return record


def _run(plan: DistillPlan) -> Run:
    from quant.distill.models import Examples
    from quant.distill.order import TedOptions
    from quant.distill.run import Run
    from quant.distill.training import TrainOptions

    s, request = plan.settings, plan.request
    training = TrainOptions(
        s["steps"], s["seed"], s["warm_up"], save_every=request.save_every, bf16=s["bf16"]
    )
    options = TedOptions(
        "ft" if request.method == "camero" else request.method,
        training,
        rate=s["rate"],
        batch=s["batch"],
        kl=s["kl"],
        hidden=s["hidden"],
        filter_steps=s["filter_steps"],
        filters_per_step=s["filters_per_step"],
        optimizer=s["optimizer"],
        base_width=s["mup"],
    )
    examples = Examples(np.maximum(plan.ids, 0), plan.ids >= 0, plan.labels)
    return Run(
        plan.directory,
        request.student,
        plan.cut,
        plan.kind,
        examples,
        options,
        request.device,
        request.transfer,
        _camero(s["camero"]),
        plan.names,
    )


def _camero(settings: Mapping[str, Any] | None) -> Camero | None:
    from quant.distill.camero import Camero

    if settings is None:
        return None
    return Camero(
        settings["heads"], settings["perturbation"], settings["consistency_target"], settings["consistency"]
    )


def _record(plan: DistillPlan) -> dict[str, Any]:
    """What shrink.json says beside the losses: what was done to what. No times, no places."""
    record = {"step": "distill", **plan.to_data(), "teacher": files_of(plan.directory, plan.source)}
    if plan.request.student:
        record["student"] = files_of(plan.request.student, f"file:{plan.request.student.name}")
        if (own := plan.request.student / RECORD).is_file():
            record["student"]["before"] = json.loads(own.read_text(encoding="utf-8"))
    record["text"] = {"name": plan.request.text.name, "sha256": sha256_of(plan.request.text)}
    before = plan.directory / RECORD
    if before.is_file():
        record["before"] = json.loads(before.read_text(encoding="utf-8"))
    return record


def files_of(directory: Path, source: str) -> dict[str, Any]:
    """A checkpoint in a record: where it came from, and the SHA-256 of its files."""
    files = sorted(p for p in directory.iterdir() if p.suffix in (".json", ".safetensors") and p.is_file())
    return {"source": source, "files": {p.name: sha256_of(p) for p in files}}


class Teller:
    """Steps as a stage of the progress, and NOTES lines with the losses."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage, self._seen = progress, "", 0

    def __call__(self, stage: str, told: Report) -> None:
        if stage != self._stage:
            # A resumed stage begins where it was, and its speed is of the steps that are left.
            self._stage, self._seen = stage, told.step - 1
            self._progress.stage(f"train {stage}", told.steps - self._seen, "steps")
        self._progress.advance(told.step - self._seen)
        self._seen = told.step
        if told.step % max(1, told.steps // NOTES) == 0 or told.step == told.steps:
            parts = ", ".join(f"{name} {value:.4g}" for name, value in told.losses.items())
            self._progress.note(f"{stage}: step {told.step} of {told.steps}, loss {told.loss:.4g} ({parts})")
