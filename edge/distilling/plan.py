"""The plan of a distillation: which student, what it is compared with, over which examples, in how much memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge.distilling import data
from edge.distilling.kinds import is_headless, kind_of, with_head
from edge.distilling.options import camero_settings, check_optimizer
from edge.distilling.pairs import check_pair, check_pieces
from edge.progress import Progress
from edge.sources import resolve
from quant.distill.cut import Cut, Keep, Kind, kept_parameters, layer_map, plan_cut
from quant.distill.launch import check_together, place

Method = Literal["ted", "lwd", "kd", "ft", "camero"]


@dataclass(frozen=True)
class DistillRequest:
    """What a person asks for. None: what the kind of the model suggests. kl, hidden: the paper's alpha 1 and 2."""

    teacher: str
    text: Path
    output: Path
    method: Method = "ted"
    layers: int | None = None
    hidden: int | None = None
    keep: Keep | None = None
    student: Path | None = None
    steps: int = 500
    seed: int = 0
    batch: int = 8
    length: int | None = None
    rate: float | None = None
    kl: float | None = None
    hidden_weight: float | None = None
    filter_steps: int | None = None
    save_every: int = 100
    bf16: bool = False
    device: str = "cpu"
    transfer: int = 0
    optimizer: Literal["adamw", "cosmos"] = "adamw"
    mup: int = 0
    heads: int | None = None
    perturbation: Literal["dropout", "r3f"] | None = None
    consistency: float | None = None
    consistency_target: Literal["ensemble", "pairwise"] | None = None


# alpha 1 and 2 of an encoder are those of TED's SST-2; a decoder's hidden term is relative, so 1 is of its own size.
DEFAULTS: dict[Kind, dict[str, Any]] = {
    "encoder": {"rate": 5e-5, "kl": 20.0, "hidden": {"ted": 20.0, "lwd": 1.0}, "length": 128, "filters": 0},
    "decoder": {"rate": 3e-4, "kl": 1.0, "hidden": {"ted": 1.0, "lwd": 1.0}, "length": 256, "filters": 2},
}


@dataclass(frozen=True)
class DistillPlan:
    """What will be done, told before any of it is. Sizes in weights, memory in bytes."""

    request: DistillRequest
    directory: Path
    source: str
    kind: Kind
    cut: Cut | None
    answers: tuple[int, ...]
    teacher_parameters: int
    student_parameters: int
    memory: int
    ids: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    settings: dict[str, Any]
    names: tuple[str, ...] = ()
    """Classes of the new head of an encoder that has none."""

    def to_data(self) -> dict[str, Any]:
        """For --json and the record: no arrays, no places."""
        return {
            "method": self.request.method,
            "kind": self.kind,
            "settings": self.settings,
            "cut": self.cut and {"layers": list(self.cut.layers), "changes": dict(self.cut.changes)},
            "layer_map": list(self.answers),
            "teacher_parameters": self.teacher_parameters,
            "student_parameters": self.student_parameters,
            "examples": len(self.ids),
            "longest": int(self.ids.shape[1]),
            **({"new_head": list(self.names)} if self.names else {}),
        }


def plan(request: DistillRequest, progress: Progress | None = None) -> DistillPlan:
    """Read config, headers and text, and check that they fit; nothing is trained. Raises any EdgeError."""
    check_together(request.batch)
    check_optimizer(request)
    source = resolve(request.teacher, progress=progress)
    config, shapes = _described(source.directory)
    fine_tuned = request.method == "ft" and request.student is None
    names = data.label_names(request.text) if fine_tuned and is_headless(config) else ()
    config = with_head(config, names) if names else config
    kind = kind_of(source.name, config)
    camero = camero_settings(request, kind)
    cut = student_shapes = None
    student_config = config
    if request.student is None:
        cut = plan_cut(config, kind, request.layers, request.hidden, request.keep, whole=fine_tuned)
        head = len(names) * (1 + int(cut.changes.get("hidden_size", config["hidden_size"])))
        depth, size = len(cut.layers), head + kept_parameters(shapes, config, cut)
    elif request.layers or request.hidden or request.keep:
        raise UnsupportedError(
            "--student is a checkpoint of its own; --layers, --hidden and --keep cut one from the teacher",
            hint="give one or the other",
        )
    else:
        student_config, student_shapes = _described(request.student)
        depth, size = int(student_config["num_hidden_layers"]), sum(map(math.prod, student_shapes.values()))
        check_pair(request, source.directory, config, student_config, kind)
    if request.transfer and (kind == "encoder" or request.student is None):
        raise UnsupportedError(
            "--transfer moves pieces of a decoder into a student with weights of its own",
            hint="give that student with --student DIR",
        )
    if request.transfer:
        check_pieces(config, student_config)
    defaults = DEFAULTS[kind]
    length = min(request.length or defaults["length"], int(config["max_position_embeddings"]))
    ids, labels = (
        data.read_words(request.text, source.directory, length)
        if kind == "decoder"
        else data.read_labelled(request.text, source.directory, config, length)
    )
    given = {"rate": request.rate, "kl": request.kl, "hidden": request.hidden_weight}
    hidden = {
        "hidden": defaults["hidden"].get(request.method, 0.0),
        "rate": defaults["rate"],
        "kl": 0.0 if camero else defaults["kl"],
    }
    settings = {
        "steps": request.steps,
        "seed": request.seed,
        "batch": request.batch,
        "length": length,
        **{k: hidden[k] if v is None else v for k, v in given.items()},
        "warm_up": request.steps // 20,
        "filter_steps": _or(request.filter_steps, max(1, request.steps // 4))
        if request.method == "ted"
        else 0,
        "filters_per_step": defaults["filters"],
        "bf16": request.bf16,
        "transfer": request.transfer,
        "processes": place().size,
        "optimizer": request.optimizer,
        "mup": request.mup,
        "camero": camero,
    }
    teacher_size, wide = sum(map(math.prod, shapes.values())), int(config["hidden_size"])
    narrow = int(cut.changes.get("hidden_size", wide)) if cut else int(student_config["hidden_size"])
    filters = {"ted": 4 * depth * wide * (wide + narrow), "lwd": 4 * depth * wide * narrow}.get(
        request.method, 0
    )
    # Weight, gradient and AdamW's two moments (COSMOS keeps less); four copies of the logits of teacher and student.
    logits = request.batch * length * int(config.get("vocab_size", 0)) * 4 * 4 if kind == "decoder" else 0
    memory = 4 * (teacher_size + 4 * size + filters) + logits
    whole = int(config["num_hidden_layers"])
    answers = cut.answers(whole) if cut else layer_map(depth, whole)
    return DistillPlan(
        request,
        source.directory,
        source.source,
        kind,
        cut,
        answers,
        teacher_size,
        size,
        memory,
        ids,
        labels,
        settings,
        names,
    )


def _described(directory: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    with Checkpoint.open(directory) as checkpoint:
        return dict(checkpoint.config), {name: tuple(t.shape) for name, t in checkpoint.tensors.items()}


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
