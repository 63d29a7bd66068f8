"""`--activations u16`: the ranges of a model's activations, measured over a text before the one streamed pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from edge.calibration_text import read_text
from edge.npu.variants import FORMAT as NPU
from edge.planned import Plan
from edge.progress import Progress
from quant.ranges import measure_ranges, widened

WINDOWS = 8
"""Of the calibration text."""
MARGIN = 1.5
"""Ranges are so much wider than what was seen: another text goes beyond, and half a bit of 16 is little
(benchmarks/npu.md)."""


def with_ranges(
    planned: Plan, checkpoint: Checkpoint, decoder: Decoder, progress: Progress
) -> tuple[Plan, dict[str, Any]]:
    """The plan with its u16 recipes knowing their ranges, and for the manifest what those are; {}: none asks."""
    asking = {v.recipe for v in planned.variants if v.format == NPU and v.recipe.activations == "u16"}
    if not asking:
        return planned, {}
    asked = planned.request.calibrate
    file = asked if isinstance(asked, Path) else None
    text = read_text(file, checkpoint.directory, decoder, count=WINDOWS)
    progress.stage("measure ranges", len(decoder.layers), "layers")
    seen = measure_ranges(checkpoint, decoder, text.windows, advance=progress.advance)
    ranges = widened(seen, MARGIN)
    variants = tuple(
        replace(v, recipe=replace(v.recipe, ranges=ranges)) if v.recipe in asking else v
        for v in planned.variants
    )
    record = {**text.to_data(), "margin": MARGIN, "ranges": ranges}
    return replace(planned, variants=variants), record
