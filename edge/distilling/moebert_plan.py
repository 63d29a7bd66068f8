"""The plan of a MoEBERT distillation: how the MLPs are split, over which examples, in how much memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge.distilling import data
from edge.distilling.kinds import kind_of
from edge.progress import Progress
from edge.sources import resolve
from quant.distill.cut import Kind
from quant.distill.launch import check_alone
from quant.distill.moebert_split import Routing, Split, plan_split

DEFAULTS: dict[Kind, dict[str, Any]] = {
    "encoder": {"rate": 2e-5, "length": 128, "ranked": 0},
    "decoder": {"rate": 3e-4, "length": 256, "ranked": 256},
}
"""The encoder's are the paper's for SST-2. A decoder's windows of words are many, and their importance is a sum."""


@dataclass(frozen=True)
class MoebertRequest:
    """What a person asks for. None: what kind and size of the model suggest. weight: the paper's lambda.

    ranked: examples that decide which neurons matter (0: all of the text).
    """

    teacher: str
    text: Path
    output: Path
    experts: int = 4
    expert_size: int | None = None
    shared: int | None = None
    routing: Routing = "hash"
    weight: float = 1.0
    steps: int = 500
    seed: int = 0
    batch: int = 8
    length: int | None = None
    rate: float | None = None
    ranked: int | None = None
    save_every: int = 100
    bf16: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class MoebertPlan:
    """Sizes in weights, memory in bytes. inner: neurons of the teacher's MLPs. active_parameters: those of the student
    that one token meets. ids: int64 [n, length], padded with -1."""

    request: MoebertRequest
    directory: Path
    source: str
    kind: Kind
    split: Split
    inner: int
    teacher_parameters: int
    student_parameters: int
    active_parameters: int
    memory: int
    ids: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    settings: dict[str, Any]

    def to_data(self) -> dict[str, Any]:
        """For --json and the record: no arrays, no places."""
        return {
            "method": "moebert",
            "kind": self.kind,
            "settings": self.settings,
            "split": {
                "experts": self.split.experts,
                "size": self.split.size,
                "shared": self.split.shared,
                "neurons_kept": self.split.kept,
                "neurons": self.inner,
            },
            "teacher_parameters": self.teacher_parameters,
            "student_parameters": self.student_parameters,
            "active_parameters": self.active_parameters,
            "examples": len(self.ids),
            "longest": int(self.ids.shape[1]),
        }


def plan(request: MoebertRequest, progress: Progress | None = None) -> MoebertPlan:
    """Read config, headers and text, and check that they fit; nothing is trained. Raises any EdgeError."""
    check_alone("--method moebert")
    source = resolve(request.teacher, progress=progress)
    with Checkpoint.open(source.directory) as checkpoint:
        config = dict(checkpoint.config)
        teacher = sum(math.prod(t.shape) for t in checkpoint.tensors.values())
    kind = kind_of(source.name, config)
    if kind == "encoder" and config.get("model_type") != "bert":
        raise UnsupportedError(
            f"{source.name} is a {config.get('model_type')}; of encoders MoEBERT splits a bert",
            hint="another method makes a smaller encoder: edge distill --layers",
        )
    inner, width, layers = (int(config[k]) for k in ("intermediate_size", "hidden_size", "num_hidden_layers"))
    split = plan_split(inner, request.experts, request.expert_size, request.shared)

    def mlp(neurons: int) -> int:
        return 3 * width * neurons if kind == "decoder" else 2 * width * neurons + neurons + 3 * width

    student = teacher + layers * (split.experts * mlp(split.size) - mlp(inner))
    defaults = DEFAULTS[kind]
    length = min(request.length or defaults["length"], int(config["max_position_embeddings"]))
    ids, labels = (
        data.read_words(request.text, source.directory, length)
        if kind == "decoder"
        else data.read_labelled(request.text, source.directory, config, length)
    )
    settings = {
        "steps": request.steps,
        "seed": request.seed,
        "batch": request.batch,
        "length": length,
        "rate": defaults["rate"] if request.rate is None else request.rate,
        "weight": request.weight,
        "routing": request.routing,
        "ranked": defaults["ranked"] if request.ranked is None else request.ranked,
        "bf16": request.bf16,
    }
    # Weight, gradient and Adam's two moments; four copies of the logits of teacher and student.
    logits = 16 * request.batch * length * int(config["vocab_size"]) if kind == "decoder" else 0
    return MoebertPlan(
        request=request,
        directory=source.directory,
        source=source.source,
        kind=kind,
        split=split,
        inner=inner,
        teacher_parameters=teacher,
        student_parameters=student,
        active_parameters=teacher + layers * (mlp(split.size) - mlp(inner)),
        memory=4 * (teacher + 4 * student) + logits,
        ids=ids,
        labels=labels,
        settings=settings,
    )


def refuse_unused(options: Mapping[str, object]) -> None:
    """UnsupportedError that names the first of these options of the other methods that is given (not None)."""
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(
                f"--method moebert has no use for {name}: the student is its teacher, its MLPs in experts",
                hint=f"leave {name} away; `edge distill --layers` makes a smaller student, which can be a teacher",
            )


def refuse_own(method: str, options: Mapping[str, object]) -> None:
    """UnsupportedError that names the first of these options of this method that is given to another."""
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(
                f"--method {method} has no use for {name}",
                hint=f"leave {name} away, or give --method moebert",
            )
