"""One distillation from directories to a directory: the door through which `edge distill` comes to torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from converters.errors import UnsupportedError
from quant.distill import camero
from quant.distill.camero import Camero
from quant.distill.cut import Cut, Kind
from quant.distill.models import Examples, load_model
from quant.distill.order import TedOptions, Told, seeded
from quant.distill.parallel import join
from quant.distill.students import cut_student
from quant.distill.ted import distill
from quant.distill.transfer import merge, sensitivity, transfer


@dataclass(frozen=True)
class Run:
    """Teacher and student directories, one of `student` and `cut` given; `device`: cpu or cuda. `transfer`: rank
    of the LoRA that is begun with the teacher's pieces and trained instead of the whole student (0: none). `camero`:
    train that way, instead of by the options' method. `names`: classes of a new head, for an encoder that has none."""

    teacher: Path
    student: Path | None
    cut: Cut | None
    kind: Kind
    examples: Examples
    options: TedOptions
    device: str = "cpu"
    transfer: int = 0
    camero: Camero | None = None
    names: tuple[str, ...] = ()


def distill_checkpoint(
    run: Run, output: Path | None, *, state: Path | None = None, name: str = "", report: Told | None = None
) -> dict[str, float]:
    """Train, and write config.json and safetensors of the student into `output`, in the type the config names; into
    nothing where that is None, because another process does.

    `state` and `name` as `state` and `run` of `distill`. Returns the losses of the last step. Raises what `train`
    raises, and UnsupportedError where `device` is not there.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("this machine has no GPU that torch can use", hint="try: --device cpu")
    join(torch.device(run.device))  # of several GPUs it chooses this process's, before anything is put on one
    with seeded(run.options.train.seed):
        teacher = load_model(run.teacher, run.kind, run.names)
    if run.cut is None:
        assert run.student is not None
        student = load_model(run.student, run.kind)
    else:
        student = cut_student(teacher, run.kind, run.cut)
    if run.transfer:
        transfer(teacher, student, sensitivity(teacher, run.examples), run.transfer)
    answers = run.cut.answers(teacher.config.num_hidden_layers) if run.cut else None
    dtype = _stored_type(run.student or run.teacher)
    rest: dict[str, Any] = {"state": state, "run": name, "report": report, "device": run.device}
    if run.camero:
        losses = camero.distill(teacher, student, run.examples, run.options, run.camero, **rest)
    else:
        losses = distill(teacher, student, run.kind, run.examples, run.options, answers=answers, **rest)
    if run.transfer:
        merge(student)
    if output is not None:
        write_student(student, output, dtype)
    return losses


def write_student(student: Any, output: Path, dtype: torch.dtype = torch.float32) -> None:
    """A Hugging Face checkpoint: the student's own tensors in `dtype`, and no filter's."""
    student.to("cpu", dtype).save_pretrained(output)
    for file in output.glob("*.safetensors"):
        file.chmod((output / "config.json").stat().st_mode)  # safetensors makes them for the owner alone


def _stored_type(directory: Path) -> torch.dtype:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
