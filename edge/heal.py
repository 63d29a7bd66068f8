"""`edge heal`: what quantization loses is learned by an adapter that ships beside the quantized weights.

A folder comes out: a checkpoint, `adapter/` as PEFT saves one, and shrink.json. The adapter is made for the weights
as `edge convert --adapter` stores those of the checkpoint beside it: the same codec, the same recipe. A training that
was interrupted goes on where it was when the same request is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from converters.models import describe
from converters.plain import require_plain
from converters.rooms import ADAPTER_ROOMS
from edge.adapters import MADE_FOR
from edge.bundle import sha256, write_json
from edge.calibration_text import read_text
from edge.extras import TRAINING, require
from edge.healing import HealRequest, Job, Method
from edge.progress import Progress
from edge.sources import Resolved, resolve
from edge.staging import staging
from edge.targets import get_target
from quant.adapters.peft_files import write_adapter
from quant.recipe import Precision, Recipe
from quant.tensor_file import SHRINK, rewrite

__all__ = ["DEFAULT_STEPS", "HealReport", "HealRequest", "heal"]

ADAPTER = "adapter"
DEFAULT_STEPS: dict[Method, int] = {"loftq": 0, "adalora": 200}
HELD_OUT = 2
"""Windows that are measured on and never trained on."""
_PLACES = ("model", "teacher", "text", "output", "save_every")
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class HealReport:
    """output: the checkpoint's folder, its adapter within. shrink: what shrink.json says."""

    output: Path
    shrink: dict[str, Any]

    @property
    def adapter(self) -> Path:
        return self.output / ADAPTER

    def to_data(self) -> dict[str, Any]:
        return {"output": str(self.output), "adapter": str(self.adapter), **self.shrink}


def heal(request: HealRequest, progress: Progress) -> HealReport:
    """Do what `request` says and publish the folder whole. Any EdgeError; nothing is left behind then."""
    if request.steps or request.method == "adalora":
        require("training", "shrink", *TRAINING, "peft")
    recipe = _recipe(request)
    source = resolve(request.model, progress=progress)
    other = resolve(request.teacher, progress=progress) if request.teacher else source
    output = request.output or Path("healed") / f"{source.name}-{request.method}"
    with (
        staging(output) as directory,
        tempfile.TemporaryDirectory() as scratch,
        Checkpoint.open(source.directory) as checkpoint,
        Checkpoint.open(other.directory) as teacher,
    ):
        decoder = describe(checkpoint)
        require_plain(decoder, "healing", "heal the dense model that it was made from")
        _require_one_tokenizer(source, other)
        text = read_text(request.text, source.directory, decoder)
        job = Job(request, recipe, checkpoint, decoder, directory, output.name, progress)
        record = {
            "step": "heal",
            "settings": _settings(request),
            "recipe": recipe.to_data(),
            "text": text.to_data(),
            "made_from": _origin(source),
            "teacher": _origin(other),
            **_before(source),
        }
        state = _state(output, progress)
        adapters: dict[str, Path] = {}
        told: dict[str, Any] = {}
        if request.method == "loftq":
            adapters["started"] = Path(scratch) / "started"
            told["layers"] = job.correct(adapters["started"])
        else:
            rewrite(checkpoint, directory, lambda name: None)
        if request.steps or request.method == "adalora":
            run = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
            text_to_learn = text.windows[HELD_OUT:]
            try:
                pairs, told["losses"] = job.train(
                    other.directory, text_to_learn, adapters.get("started"), state=state, run=run
                )
            except KeyboardInterrupt:
                if state.exists():
                    progress.note(f"the state is kept in {state}; the same command goes on from there")
                raise
            adapters["healed"] = Path(scratch) / "healed"
            write_adapter(adapters["healed"], pairs, output.name)
            told["ranks"] = {module: len(a) for module, (a, _) in pairs.items()}
        shutil.copytree(list(adapters.values())[-1], directory / ADAPTER)
        write_json(directory / ADAPTER / MADE_FOR, recipe.to_data())
        told["kl"] = job.measure(teacher, text.windows[:HELD_OUT], adapters)
        write_json(directory / SHRINK, record | told)
    state.unlink(missing_ok=True)
    progress.done()
    return HealReport(output, record | told)


def _recipe(request: HealRequest) -> Recipe:
    target = get_target(request.target)
    if target.format not in ADAPTER_ROOMS:
        raise UnsupportedError(
            f"target '{target.name}' cannot switch adapters at run time, and healing makes one",
            hint="--target android or cpu",
        )
    return Recipe.preset(request.precision or cast(Precision, target.precision))


def _require_one_tokenizer(source: Resolved, teacher: Resolved) -> None:
    if (source.directory / _TOKENIZER).read_bytes() != (teacher.directory / _TOKENIZER).read_bytes():
        raise UnsupportedError(
            f"{source.name} and its teacher {teacher.name} have different tokenizers: their tokens are not the same",
            hint="name the model that this one was made from, or leave --teacher away",
        )


def _origin(source: Resolved) -> dict[str, Any]:
    weights = sorted(source.directory.glob("*.safetensors"))
    files = {file.name: sha256(file) for file in (source.directory / "config.json", *weights)}
    return {"name": source.name, "source": source.source, "sha256": files}


def _before(source: Resolved) -> dict[str, Any]:
    """How the model was shrunk before, if it was."""
    file = source.directory / SHRINK
    return {"before": json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {}


def _state(output: Path, progress: Progress) -> Path:
    """The file beside `output` that an interrupted training leaves."""
    state = output.absolute().parent / f".{output.name}.edge-heal"
    if state.exists():
        progress.note(f"going on from {state}")
    return state


def _settings(request: HealRequest) -> dict[str, Any]:
    """Without what says where and not how."""
    return {k: v for k, v in asdict(request).items() if k not in _PLACES}
