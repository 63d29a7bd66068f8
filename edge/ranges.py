"""`--activations u16`: the ranges of a model's activations, measured over a text before the one streamed pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from edge.calibration_text import LENGTH, read_text
from edge.progress import Progress
from quant.ranges import measure_ranges, needed_bytes, widened

if TYPE_CHECKING:
    from edge.planned import Plan, PlannedVariant

WINDOWS = 8
"""Of the calibration text."""
MARGIN = 1.5
"""Ranges are so much wider than what was seen: another text goes beyond, and half a bit of 16 is little
(benchmarks/npu.md)."""


def needs_ranges(variant: PlannedVariant) -> bool:
    return variant.format == "npu" and variant.recipe.activations == "u16"


def memory_bytes(decoder: Decoder) -> int:
    """Of this process while it measures."""
    return needed_bytes(decoder, WINDOWS, LENGTH)


def with_ranges(
    planned: Plan, checkpoint: Checkpoint, decoder: Decoder, progress: Progress
) -> tuple[Plan, dict[str, Any]]:
    """The plan with its u16 recipes knowing their ranges, and for the manifest what those are; {}: none asks."""
    asking = {variant.recipe for variant in planned.variants if needs_ranges(variant)}
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
