"""The charts of a report, one function a section; each gives SVG text, or nothing where there is nothing to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.charts import Bar, Series, heatmap, histogram, line_chart, stacked_bars
from edge.reporting.errors import Errors
from edge.reporting.findings import Findings, VariantFindings
from edge.reporting.sizes import ATTENTION, MLP
from edge.reporting.speed import Speed, series
from edge.reporting.storages import COLUMNS
from edge.reporting.words import nats, percent
from edge.units import size

WIDTH = 420.0
"""Of every chart: on a phone's 390 pixels its text is still 10 high."""


def file_bars(found: Findings) -> str:
    """Each artifact's bytes by part, below the checkpoint's where that is known."""
    bars = [Bar("checkpoint", found.original.parts)] if found.original else []
    bars += [Bar(each.name, each.sizes.parts) for each in found.variants]
    return stacked_bars(bars, title="Bytes by part", show=size, width=WIDTH)


def memory_bars(found: Findings) -> str | None:
    """What each artifact takes on its device with a full context, as the manifest tells it."""
    bars = [
        Bar(each.name, {part.replace("kv_", "KV "): nbytes for part, nbytes in each.facts.memory.items()})
        for each in found.variants
        if each.facts.memory
    ]
    return (
        stacked_bars(bars, title="Memory on the device, context full", show=size, width=WIDTH)
        if bars
        else None
    )


def layer_bars(found: VariantFindings) -> str | None:
    """Bytes of each layer, where the layers differ."""
    layers = found.sizes.layers
    if len({tuple(layer.items()) for layer in layers}) < 2:
        return None
    bars = [
        Bar(f"layer {i}", {part: layer.get(part, 0) for part in (ATTENTION, MLP)})
        for i, layer in enumerate(layers)
    ]
    return stacked_bars(bars, title=f"Bytes by layer: {found.name}", show=size, width=WIDTH, thickness=9.0)


def groups(found: Findings) -> list[tuple[str, Errors]]:
    """Variants whose stored weights stand for the same numbers, together: their names, and the errors."""
    grouped: list[tuple[list[str], Errors]] = []
    for each in found.variants:
        if each.errors is None:
            continue
        for names, known in grouped:
            if np.array_equal(known.layers, each.errors.layers) and known.outside == each.errors.outside:
                names.append(each.name)
                break
        else:
            grouped.append(([each.name], each.errors))
    return [(" and ".join(names), known) for names, known in grouped]


def bit_map(found: VariantFindings) -> str | None:
    """Bits of each matrix, where the recipe does not treat all alike."""
    if found.bits is None or np.ptp(found.bits) == 0:
        return None
    return heatmap(
        found.bits,
        row_labels=[f"layer {i}" for i in range(len(found.bits))],
        column_labels=COLUMNS,
        title=f"Bits of each weight: {found.name}",
        unit="bits per weight",
        width=WIDTH,
    )


def error_map(name: str, errors: Errors) -> str:
    """Rows are layers, columns the matrices of a layer."""
    return heatmap(
        errors.layers,
        row_labels=[f"layer {i}" for i in range(len(errors.layers))],
        column_labels=COLUMNS,
        title=f"Error of each stored weight: {name}",
        unit="relative error",
        show=percent,
        width=WIDTH,
    )


def hidden_lines(grouped: Sequence[tuple[str, Errors]]) -> str | None:
    """How the error grows from layer to layer."""
    if not grouped:
        return None
    lines = [
        Series(name, range(len(each.hidden)), [100.0 * e for e in each.hidden]) for name, each in grouped
    ]
    return line_chart(
        lines,
        title="Error of the hidden states",
        x_label="layer",
        y_label="percent of their length",
        width=WIDTH,
    )


def kl_bars(evaluated: Sequence[VariantFindings]) -> list[str]:
    """How the KL of the single predictions is distributed, of each variant on the same axis."""
    found = [(each.name, e, e.positions.kl) for each in evaluated if (e := each.evaluation)]
    known = [(name, e, kl) for name, e, kl in found if kl is not None]
    every = np.concatenate([kl.ravel() for _, _, kl in known]) if known else np.empty(0)
    return [
        histogram(
            kl,
            title=f"KL divergence of each prediction: {name}",
            x_label="nats",
            log=True,
            span=every,
            marks=[
                (word, float(nats(figure.value)))
                for word, figure in (("median", e.kl_median), ("mean", e.kl_mean), ("99%", e.kl_p99))
                if figure is not None
            ],
            width=WIDTH,
        )
        for name, e, kl in known
    ]


def speed_lines(speeds: Sequence[Speed]) -> list[str]:
    """Decode speed and its share of the memory's bandwidth over depth, time to first token over prompt length."""
    charts = [
        ("decode", 1.0, "Decode speed", "tokens before", "tokens per second"),
        ("first_token", 1.0, "Time to first token", "tokens of the prompt", "seconds"),
        ("share", 100.0, "Decode: share of the memory's bandwidth", "tokens before", "percent"),
    ]
    drawn = []
    for measure, scale, title, x_label, y_label in charts:
        lines = series(speeds, measure, scale)
        if any(line.points() for line in lines):
            drawn.append(line_chart(lines, title=title, x_label=x_label, y_label=y_label, width=WIDTH))
    return drawn
