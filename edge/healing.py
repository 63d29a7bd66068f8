"""The stages of `edge heal`: correct, train, measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import UnsupportedError
from converters.models import describe
from converters.peft import attach
from converters.reference import logits
from converters.verify import divergence
from edge.progress import Progress
from quant.adapters.linears import Pairs, linears
from quant.adapters.loftq import correct_checkpoint
from quant.adapters.peft_files import write_adapter
from quant.blocks import FORMATS
from quant.recipe import Precision, Recipe

Method = Literal["loftq", "adalora"]


@dataclass(frozen=True)
class HealRequest:
    """What a person asks for. teacher: None for the model itself in floating point. steps: of training, 0 for none.
    iterations: LoftQ's. text: a file, None for the text that ships. save_every: steps between states to go on from."""

    model: str
    method: Method = "loftq"
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
    save_every: int = 100


@dataclass(frozen=True)
class Job:
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
        self, teacher: Path, windows: NDArray[np.int64], started: Path | None, *, state: Path, run: str
    ) -> tuple[Pairs, list[float]]:
        """The pairs after training beside the written checkpoint's weights as deployed, and the loss of each step.

        state, run: the file from which an interrupted training goes on, and which run that is.
        """
        from quant.adapters import adalora, lora_training
        from quant.adapters.training import Training, deploy, load_model

        request = self.request
        training = Training(
            request.steps, rate=request.rate, batch=request.batch, seed=request.seed,
            state=state, run=run, save_every=request.save_every,
        )  # fmt: skip
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
