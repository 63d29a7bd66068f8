"""`edge distill --method moe`: a dense model becomes a mixture of experts, and learns to be one from itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from edge.distilling import data
from edge.extras import TRAINING, require
from edge.progress import Progress, Silent
from edge.sources import resolve
from edge.sources.cache import sha256_of
from edge.staging import staging
from quant.distill.launch import check_alone
from quant.distill.upcycle import Upcycling, check, parameters, upcycle
from quant.tensor_file import SHRINK

if TYPE_CHECKING:
    from quant.distill.training import Report

LENGTH, RATE = 256, 1e-4


@dataclass(frozen=True)
class MoeRequest:
    """What a person asks for; as edge.distilling.plan.DistillRequest."""

    teacher: str
    text: Path
    output: Path
    experts: int = 4
    steps: int = 500
    seed: int = 0
    batch: int = 8
    length: int = LENGTH
    rate: float = RATE
    save_every: int = 100
    bf16: bool = False


@dataclass(frozen=True)
class MoePlan:
    """Sizes in weights, memory in bytes. ids: int64 [n, length]."""

    request: MoeRequest
    directory: Path
    source: str
    teacher_parameters: int
    student_parameters: int
    memory: int
    ids: NDArray[np.int64]

    def to_data(self) -> dict[str, Any]:
        """For --json and the record: no arrays, no places."""
        places = ("teacher", "text", "output", "save_every")
        return {
            "method": "moe",
            "settings": {k: v for k, v in asdict(self.request).items() if k not in places},
            "teacher_parameters": self.teacher_parameters,
            "student_parameters": self.student_parameters,
            "examples": len(self.ids),
        }


def plan(request: MoeRequest, progress: Progress | None = None) -> MoePlan:
    """Read config, headers and text, and check that they fit; nothing is trained. Raises any EdgeError."""
    check_alone("--method moe")
    source = resolve(request.teacher, progress=progress)
    with Checkpoint.open(source.directory) as checkpoint:
        decoder = describe(checkpoint)
    check(decoder)
    length = min(request.length, decoder.context_length)
    ids, _ = data.read_words(request.text, source.directory, length)
    size = parameters(decoder, request.experts)
    # Weight, gradient and Adam's two moments; four copies of the logits of teacher and student.
    memory = 4 * (decoder.parameters + 4 * size) + 16 * request.batch * length * decoder.vocab_size
    return MoePlan(request, source.directory, source.source, decoder.parameters, size, memory, ids)


def refuse_unused(options: Mapping[str, object]) -> None:
    """UnsupportedError that names the first of these options of the other methods that is given (not None)."""
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(
                f"--method moe has no use for {name}: the mixture has its teacher's layers, and learns its answers",
                hint=f"leave {name} away; `edge distill --layers` makes a smaller dense student first",
            )


def distill(planned: MoePlan, progress: Progress | None = None) -> dict[str, Any]:
    """Upcycle, train and publish with the record; returns the record. The same plan goes on where it was stopped.

    Raises UnsupportedError where torch is missing, TrainingError when the training diverges, and what staging raises.
    """
    progress = progress or Silent()
    require("edge distill", "shrink", *TRAINING)
    from quant.adapters.training import load_model
    from quant.distill import moe
    from quant.distill.training import TrainOptions

    request = planned.request
    record = _record(planned)
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    output = request.output.absolute()
    state = output.parent / f".{output.name}.edge-distill"
    settings = moe.MoeTraining(rate=request.rate, batch=request.batch)
    options = TrainOptions(
        request.steps, request.seed, request.steps // 20, save_every=request.save_every, bf16=request.bf16
    )
    with staging(request.output) as partial, tempfile.TemporaryDirectory() as scratch:
        begun = Path(scratch)
        with Checkpoint.open(planned.directory) as dense:
            progress.stage("upcycle")
            upcycle(dense, describe(dense), begun, Upcycling(experts=request.experts, seed=request.seed))
        student, teacher = moe.load_student(begun, settings), load_model(planned.directory)
        if state.exists():
            progress.note(f"going on from {state}")
        report = _Teller(progress, request.steps)
        record["losses"] = moe.train(
            student, teacher, planned.ids, options, settings, state=state / "moe.pt", run=name, report=report
        )
        with Checkpoint.open(begun) as mixture:
            moe.save(student.eval(), mixture, partial)
        (partial / SHRINK).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(state, ignore_errors=True)
    return record


def _record(planned: MoePlan) -> dict[str, Any]:
    files = sorted(p for p in planned.directory.iterdir() if p.suffix in (".json", ".safetensors"))
    record = {
        "step": "distill",
        **planned.to_data(),
        "teacher": {"source": planned.source, "files": {p.name: sha256_of(p) for p in files}},
        "text": {"name": planned.request.text.name, "sha256": sha256_of(planned.request.text)},
    }
    before = planned.directory / SHRINK
    if before.is_file():
        record["before"] = json.loads(before.read_text(encoding="utf-8"))
    return record


class _Teller:
    """Steps as a stage of the progress, and ten lines with the losses."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._seen = progress, 0
        self._every = max(1, steps // 10)

    def __call__(self, told: Report) -> None:
        if not self._seen:
            # A resumed run begins where it was, and its speed is of the steps that are left.
            self._seen = told.step - 1
            self._progress.stage("train moe", told.steps - self._seen, "steps")
        self._progress.advance(told.step - self._seen)
        self._seen = told.step
        if told.step % self._every == 0 or told.step == told.steps:
            parts = ", ".join(f"{name} {value:.4g}" for name, value in told.losses.items())
            self._progress.note(f"step {told.step} of {told.steps}, loss {told.loss:.4g} ({parts})")
