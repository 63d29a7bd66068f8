"""`edge prune`: a checkpoint becomes a smaller or a sparser one, with a `shrink.json` that says how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import CheckpointError, UnsupportedError
from converters.models import describe
from edge.bundle import sha256, write_json
from edge.calibration_text import DEFAULT_TEXT
from edge.evaluation.tokens import folder_first_token
from edge.evaluation.windows import Windows, cut, read_text
from edge.extras import TRAINING, require
from edge.manifest import check_side_files
from edge.progress import Progress
from edge.runtimes.tokenizer import FolderTokenizer
from edge.sources import resolve
from edge.sources.cache import checkpoint_key, exclusive, place
from edge.staging import staging
from quant.lowrank.names import MODEL_TYPE as LOSPARSE
from quant.prune.settings import Settings
from quant.tensor_file import SHRINK, copy_side_files

MODEL_TYPE = "phi3"
FEWEST = 2
"""Windows: one to train on, one held out."""
# Bump it when the same settings would give another run.
VERSION = 2


@dataclass(frozen=True)
class PruneRequest:
    """model: checkpoint directory, .gguf file or name. output: a new place. text: UTF-8 file to train on, None for the
    one that ships."""

    model: str
    output: Path
    settings: Settings
    text: Path | None = None


class _Step(Protocol):
    """What a training loop tells after each of its steps."""

    @property
    def step(self) -> int: ...


def prune(request: PruneRequest, progress: Progress) -> dict[str, Any]:
    """Prune, write the checkpoint to `request.output` whole or not at all, and return its shrink.json.

    A run that was interrupted goes on where it was when the same one is asked for again. Raises UnsupportedError for a
    model, text or settings that make no run, BundleError where the output cannot be written, and what training raises.
    """
    settings = request.settings
    settings.check()
    require("edge prune", "shrink", *TRAINING)
    source = resolve(request.model, progress=progress)
    check_side_files(source.directory)
    text = request.text or DEFAULT_TEXT
    with Checkpoint.open(source.directory) as checkpoint:
        decoder = describe(checkpoint)
        if decoder.model_type == LOSPARSE:
            raise UnsupportedError(
                f"{source.name} is in factors already, and rows that are gone leave no score to choose by",
                hint="prune the dense model that it was made from to other shares, or train this one on: "
                "edge distill DENSE --student THIS",
            )
        if decoder.model_type != MODEL_TYPE:
            raise UnsupportedError(
                f"config.json: model_type '{decoder.model_type}' cannot be pruned, only {MODEL_TYPE}",
                hint="choose a Phi-3, Phi-3.5-mini, Phi-4 or Phi-4-mini, or smollm2-135m-instruct",
            )
        windows = _windows(source.directory, decoder, text, settings.length)
        digest = hashlib.sha256(windows.ids.tobytes()).hexdigest()
        key = checkpoint_key(checkpoint, version=VERSION, settings=settings.to_data(), ids=digest)
        weights = sorted({info.file.name for info in checkpoint.tensors.values()})
    state = place("pruning", key, "state.pt")
    with staging(request.output) as directory, exclusive(state.parent):
        copy_side_files(source.directory, directory)
        result = _run(source.directory, directory, windows, settings, state, key, progress)
        progress.stage("hash")
        hashes = {name: sha256(source.directory / name) for name in ("config.json", *weights)}
        shrink = {
            "step": "prune",
            "method": settings.method,
            "made_from": {"name": source.name, "source": source.source, "sha256": hashes},
            "settings": settings.to_data(),
            "text": {"text": text.name, "sha256": sha256(text), "windows": len(windows.ids)},
            "tools": {name: version(name) for name in TRAINING},
            "result": result,
            **_before(source.directory),
        }
        write_json(directory / SHRINK, shrink)
    state.unlink(missing_ok=True)
    progress.done()
    return shrink


def _run(
    source: Path,
    directory: Path,
    windows: Windows,
    settings: Settings,
    state: Path,
    key: str,
    progress: Progress,
) -> Mapping[str, Any]:
    # torch is loaded here and not before: whatever can be told without it has been told.
    from quant.prune.run import run

    done = 0

    def report(told: _Step) -> None:
        nonlocal done
        progress.advance(told.step - done)
        done = told.step

    progress.stage("prune", settings.steps, "steps")
    return run(source, directory, windows.ids, settings, state=state, name=key, report=report).to_data()


def _windows(source: Path, decoder: Decoder, text: Path, length: int) -> Windows:
    try:
        words = read_text(text)
    except OSError as error:
        raise UnsupportedError(
            f"text {text} cannot be read: {error.strerror}", hint=f"try: ls -l {text}"
        ) from None
    ids = FolderTokenizer(source).encode(words, special=True)
    length = min(length, decoder.context_length)
    if len(ids) < FEWEST * length:
        raise UnsupportedError(
            f"{text} has {len(ids)} tokens, training on it takes {FEWEST * length} at least",
            hint="a longer text, or a smaller --length",
        )
    found = cut(ids, length=length, bos=folder_first_token(source), most=None, name=str(text))
    if found.ids.max() >= decoder.vocab_size:
        raise CheckpointError(
            f"{source / 'tokenizer.json'} gives the id {found.ids.max()}, the embedding has "
            f"{decoder.vocab_size} rows",
            hint="fetch the checkpoint again: the tokenizer belongs to another model",
        )
    return found


def _before(source: Path) -> dict[str, Any]:
    """How the checkpoint was shrunk before, if it was."""
    file = source / SHRINK
    return {"before": json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {}
