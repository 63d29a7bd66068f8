"""`--calibrate`: codes chosen over a text before the one streamed pass.

They are kept in the cache, so that a conversion that was killed goes on at the layer where it was, and the same
model for another target takes the same codes at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from edge.calibration_text import CalibrationText
from edge.progress import Progress
from edge.sources.cache import checkpoint_key, exclusive, place
from quant.blocks import FORMATS
from quant.calibrate import Calibration, Settings
from quant.codes import CodeStore
from quant.recipe import Recipe

SAVE_SECONDS = 60.0
"""A walk that is killed loses no more than this and the layer it was in."""
KEPT = 3
"""Finished calibrations that stay in the cache."""
# Bump it when the same text and settings would give other codes.
VERSION = 2


def calibrate(
    checkpoint: Checkpoint,
    decoder: Decoder,
    recipe: Recipe,
    text: CalibrationText,
    *,
    spill: bool,
    progress: Progress,
) -> tuple[CodeStore, dict[str, Any]]:
    """The codes that `recipe` asks for, and the record of how they were chosen, for the manifest."""
    settings = Settings()
    asked = {weight.name for weight in recipe.to_calibrate(decoder)}
    key = checkpoint_key(
        checkpoint,
        version=VERSION,
        recipe=recipe.to_data(),
        text=text.to_data(),
        ids=hashlib.sha256(text.windows.tobytes()).hexdigest(),
        settings=asdict(settings),
    )
    directory = place("calibrations", key, "state.json").parent
    with exclusive(directory):
        codes = CodeStore(directory / "codes")
        if (done := _finished(directory)) is None:
            walk = Calibration(
                checkpoint,
                decoder,
                text.windows,
                lambda w: FORMATS[recipe.storage(w)] if w.name in asked else None,
                codes,
                settings=settings,
                spill=directory if spill else None,
            )
            try:
                _walk(walk, directory, len(decoder.layers), progress)
            finally:
                walk.close()
            done = {
                **text.to_data(),
                "settings": asdict(settings),
                "codes_sha256": codes.digest(w for w in decoder.weights() if w.name in asked),
            }
            _write(directory / "done.json", done)
            (directory / "streams.bin").unlink(missing_ok=True)
            _prune(directory)
    return codes, done


def _walk(walk: Calibration, directory: Path, layers: int, progress: Progress) -> None:
    state = directory / "state.json"
    if state.is_file():
        walk.restore(directory / "streams.bin", int(json.loads(state.read_text())["layer"]))
        progress.note(f"calibration goes on at layer {walk.layer}, where it was stopped")
    progress.stage("calibrate", layers, "layers")
    progress.advance(walk.layer)
    saved = time.monotonic()
    while walk.layer < layers:
        walk.step()
        progress.advance(1)
        if time.monotonic() - saved > SAVE_SECONDS and walk.layer < layers:
            state.unlink(missing_ok=True)  # the streams and the layer's number change together or not at all
            walk.save(directory / "streams.bin")
            _write(state, {"layer": walk.layer})
            saved = time.monotonic()


def _finished(directory: Path) -> dict[str, Any] | None:
    done = directory / "done.json"
    return json.loads(done.read_text()) if done.is_file() else None


def _write(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, sort_keys=True))
    partial.replace(path)


def _prune(newest: Path) -> None:
    """Keep the calibrations that were finished last."""
    finished = sorted(newest.parent.glob("*/done.json"), key=lambda f: f.stat().st_mtime_ns, reverse=True)
    for old in finished[KEPT:]:
        if old.parent != newest:
            shutil.rmtree(old.parent, ignore_errors=True)
