"""`edge heal`: what quantization loses is learned by an adapter that ships beside the quantized weights.

A folder comes out: a checkpoint, `adapter/` as PEFT saves one, and shrink.json. The adapter is made for the weights
as `edge convert --adapter` stores those of the checkpoint beside it: the same codec, the same recipe.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.models import describe
from converters.peft import attach
from converters.plain import require_plain
from converters.reference import logits
from converters.rooms import ADAPTER_ROOMS
from converters.verify import divergence
from edge.adapters import MADE_FOR
from edge.bundle import sha256, write_json
from edge.calibration_text import read_text
from edge.progress import Progress
from edge.sources import Resolved, resolve
from edge.staging import staging
from edge.targets import get_target
from quant.adapters.linears import Pairs, linears
from quant.adapters.loftq import correct_checkpoint
from quant.adapters.peft_files import write_adapter
from quant.blocks import FORMATS
from quant.recipe import Precision, Recipe
from quant.tensor_file import SHRINK, rewrite

Method = Literal["loftq", "adalora"]
ADAPTER = "adapter"
DEFAULT_STEPS: dict[Method, int] = {"loftq": 0, "adalora": 200}
HELD_OUT = 2
"""Windows that are measured on and never trained on."""
_TOKENIZER = "tokenizer.json"
_GUESTS = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class HealRequest:
    """What a person asks for. teacher: None for the model itself in floating point. steps: of training, 0 for none.
    iterations: LoftQ's. text: a file, None for the text that ships."""

    model: str
    method: Method
    target: str = "cpu"
    precision: Precision | None = None
    rank: int = 16
    iterations: int = 5
    steps: int = 0
    rate: float = 2e-4
    batch: int = 2
    seed: int = 0
    teacher: str | None = None
    text: Path | None = None
    output: Path | None = None


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
        _require_guests()
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
        job = _Job(request, recipe, checkpoint, decoder, directory, output.name, progress)
        adapters: dict[str, Path] = {}
        told: dict[str, Any] = {}
        if request.method == "loftq":
            adapters["started"] = Path(scratch) / "started"
            told["layers"] = job.correct(adapters["started"])
        else:
            rewrite(checkpoint, directory, lambda name: None)
        if request.steps or request.method == "adalora":
            pairs, told["losses"] = job.train(
                other.directory, text.windows[HELD_OUT:], adapters.get("started")
            )
            adapters["healed"] = Path(scratch) / "healed"
            write_adapter(adapters["healed"], pairs, output.name)
            told["ranks"] = {module: len(a) for module, (a, _) in pairs.items()}
        shutil.copytree(list(adapters.values())[-1], directory / ADAPTER)
        write_json(directory / ADAPTER / MADE_FOR, recipe.to_data())
        told["kl"] = job.measure(teacher, text.windows[:HELD_OUT], adapters)
        record = {
            "step": "heal",
            "settings": _settings(request),
            "recipe": recipe.to_data(),
            "text": text.to_data(),
            "made_from": _origin(source),
            "teacher": _origin(other),
            **told,
        }
        write_json(directory / SHRINK, record)
    progress.done()
    return HealReport(output, record)


@dataclass(frozen=True)
class _Job:
    """What the stages of one run share. directory: where the checkpoint is written. base: what it will be called."""

    request: HealRequest
    recipe: Recipe
    checkpoint: Checkpoint
    decoder: Decoder
    directory: Path
    base: str
    progress: Progress

    def deployed(self, weight: Weight, start: int, rows: NDArray[Any]) -> NDArray[np.float32]:
        """What a device computes with."""
        return self.recipe.decode(self.recipe.encode(weight, rows, start=start))

    def correct(self, adapter: Path) -> list[dict[str, Any]]:
        """LoftQ: write the checkpoint, and its adapter into the new folder `adapter`; what is told of each layer."""
        found = [
            linear
            for linear in linears(self.decoder)
            if any(self.recipe.storage(weight) in FORMATS for weight, _ in linear.weights)
        ]
        if not found:
            raise UnsupportedError(
                f"precision {self.recipe.name} rounds no linear layer to blocks, so LoftQ has nothing to make up for",
                hint="--precision int4, or --method adalora with a --teacher",
            )
        self.progress.stage("correct", len(found), "layers")
        pairs, layers = correct_checkpoint(
            self.checkpoint, found, self.deployed, self.directory,
            rank=self.request.rank, iterations=self.request.iterations, advance=self.progress.advance,
        )  # fmt: skip
        write_adapter(adapter, pairs, self.base)
        return layers

    def train(
        self, teacher: Path, windows: NDArray[np.int64], started: Path | None
    ) -> tuple[Pairs, list[float]]:
        """The pairs after training beside the written checkpoint's weights as deployed, and the loss of each step."""
        from quant.adapters import adalora, lora_training
        from quant.adapters.training import Training, deploy, load_model

        request = self.request
        training = Training(request.steps, rate=request.rate, batch=request.batch, seed=request.seed)
        schedule = adalora.Schedule.of(request.rank, request.steps) if started is None else None
        student = load_model(self.directory)
        with Checkpoint.open(self.directory) as written:
            deploy(student, written, self.decoder, self.deployed)
        both, found = (student, load_model(teacher)), linears(self.decoder)
        self.progress.stage("heal", request.steps, "steps")
        if schedule is None:
            assert started is not None
            return lora_training.heal(*both, started, found, windows, training, self.progress.advance)
        return adalora.heal(*both, found, windows, schedule, training, self.progress.advance)

    def measure(
        self, teacher: Checkpoint, windows: NDArray[np.int64], adapters: Mapping[str, Path]
    ) -> dict[str, float]:
        """Mean KL(teacher || model as deployed), nats a token: of the model as it came, and with each adapter."""
        kl: dict[str, list[float]] = {name: [] for name in ("as it came", *adapters)}
        self.progress.stage("measure", len(windows) * (1 + len(kl)), "windows")
        reference = describe(teacher)
        with Checkpoint.open(self.directory) as written:
            decoder = describe(written)
            for name, folder in adapters.items():
                decoder = attach(written, decoder, folder, name)
            for ids in windows.tolist():
                expected = logits(teacher, reference, ids)
                self.progress.advance(1)
                found = logits(self.checkpoint, self.decoder, ids, transform=self.deployed)
                kl["as it came"].append(divergence(expected, found).kl_mean)
                self.progress.advance(1)
                for lora in decoder.adapters:
                    found = logits(written, decoder, ids, transform=self.deployed, adapter=lora)
                    kl[lora.name].append(divergence(expected, found).kl_mean)
                    self.progress.advance(1)
        return {name: float(np.mean(values)) for name, values in kl.items()}


def _recipe(request: HealRequest) -> Recipe:
    target = get_target(request.target)
    if target.format not in ADAPTER_ROOMS:
        raise UnsupportedError(
            f"target '{target.name}' cannot switch adapters at run time, and healing makes one",
            hint="--target android or cpu",
        )
    return Recipe.preset(request.precision or cast(Precision, target.precision))


def _require_guests() -> None:
    missing = [name for name in _GUESTS if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"training needs {' and '.join(missing)}, not installed here",
            hint="pip install 'edge[shrink]'",
        )


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


def _settings(request: HealRequest) -> dict[str, Any]:
    """Without paths, which say where and not how."""
    return {k: v for k, v in asdict(request).items() if k not in ("model", "teacher", "text", "output")}
