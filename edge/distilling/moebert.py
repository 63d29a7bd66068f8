"""`edge distill --method moebert`: a model's MLPs become experts, one for each token; it learns to be itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import numpy as np

from edge.distill import RECORD, SIDE_FILES, Teller, files_of
from edge.distilling.moebert_plan import MoebertPlan
from edge.extras import TRAINING, require
from edge.progress import Progress, Silent
from edge.sources.cache import sha256_of
from edge.staging import staging


def distill(planned: MoebertPlan, progress: Progress | None = None) -> dict[str, Any]:
    """Split, train and publish with the record; returns the record. The same plan goes on where it was stopped.

    Raises UnsupportedError where torch is missing, TrainingError when the training diverges, and what staging raises.
    """
    progress = progress or Silent()
    progress.stage("prepare")
    require("edge distill", "shrink", *TRAINING)
    from quant.distill.models import Examples
    from quant.distill.moebert import MoebertOptions, distill_checkpoint
    from quant.distill.training import TrainOptions

    s, request = planned.settings, planned.request
    record = _record(planned)
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    output = request.output.absolute()
    state = output.parent / f".{output.name}.edge-distill"
    options = MoebertOptions(
        planned.split,
        # No warm-up, as in the paper.
        TrainOptions(s["steps"], s["seed"], save_every=request.save_every, bf16=s["bf16"]),
        rate=s["rate"],
        batch=s["batch"],
        weight=s["weight"],
        routing=s["routing"],
        ranked=s["ranked"],
    )
    examples = Examples(np.maximum(planned.ids, 0), planned.ids >= 0, planned.labels)
    teller = Teller(progress)
    with staging(request.output) as partial:
        if state.exists():
            progress.note(f"going on from {state}")
        else:
            most = len(planned.ids)
            progress.stage("rank neurons", min(s["ranked"] or most, most), "examples")
        record["losses"] = distill_checkpoint(
            planned.directory,
            planned.kind,
            examples,
            options,
            partial,
            state=state / "moebert.pt",
            run=name,
            report=lambda told: teller("student", told),
            device=request.device,
            ranked=progress.advance,
        )
        for pattern in SIDE_FILES:
            for file in planned.directory.glob(pattern):
                shutil.copyfile(file, partial / file.name)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(state, ignore_errors=True)
    return record


def _record(planned: MoebertPlan) -> dict[str, Any]:
    """What shrink.json says beside the losses: what was done to what. No times, no places."""
    text = planned.request.text
    record = {"step": "distill", **planned.to_data(), "teacher": files_of(planned.directory, planned.source)}
    record["text"] = {"name": text.name, "sha256": sha256_of(text)}
    before = planned.directory / RECORD
    if before.is_file():
        record["before"] = json.loads(before.read_text(encoding="utf-8"))
    return record
