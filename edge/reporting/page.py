"""Findings as one HTML page: no script, nothing fetched, every foreign text escaped by the template engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edge.evaluation.statistics import Estimate
from edge.formats import FORMATS
from edge.reporting import panels
from edge.reporting.claims import Check
from edge.reporting.findings import Findings, VariantFindings
from edge.reporting.foreign import flowing
from edge.reporting.predictions import KL_STEPS, cases, spans
from edge.reporting.words import estimate, nats, percent
from edge.units import duration, size

TEMPLATES = Path(__file__).parent


def render(found: Findings) -> str:
    """The page; the same findings give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size,
        "percent": percent,
        "nats": nats,
        "duration": duration,
    }
    grouped = panels.groups(found)
    evaluated = [each for each in found.variants if each.evaluation is not None]
    return environment.get_template("page.html").render(
        found=found,
        origin=found.provenance,
        lede=_lede(found),
        proof=found.bundle.manifest["proof"],
        cards=[_card(found, each) for each in found.variants],
        size_charts=_drawn(
            [panels.file_bars(found), panels.memory_bars(found), *map(panels.layer_bars, found.variants)]
        ),
        uniform=[each for each in found.variants if each.sizes.layers and panels.layer_bars(each) is None],
        error_charts=_drawn([*(panels.error_map(*each) for each in grouped), panels.hidden_lines(grouped)]),
        grouped=grouped,
        evaluated=evaluated,
        figures=_figures(evaluated),
        kl_charts=_drawn(panels.kl_bars(evaluated)),
        steps=list(enumerate(KL_STEPS, 1)),
        predictions=[
            (each.name, spans(each.evaluation), cases(each.evaluation))
            for each in evaluated
            if each.evaluation
        ],
        speed_charts=_drawn(panels.speed_lines(found.speeds)),
        machines=sorted({(s.system, s.threads, s.runs) for s in found.speeds}),
        recipes=_recipes(found.variants),
        bit_charts=_drawn(map(panels.bit_map, found.variants)),
        notes=_notes(found),
        check=_check,
    )


def _shown(value: Any) -> Any:
    """Every text on the page, but for ready markup, is a stranger's until proven otherwise."""
    return flowing(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawn(charts: Iterable[str | None]) -> list[Markup]:
    # Charts escape what they hold (edge.reporting.svg).
    return [Markup(chart) for chart in charts if chart is not None]


def _lede(found: Findings) -> str:
    """What kind of model, how large, under which licence: as far as the manifest says."""
    model = found.provenance.model
    parts = [str(model["architecture"])] if "architecture" in model else []
    if isinstance(parameters := model.get("parameters"), int):
        parts.append(f"{parameters:,} parameters")
    if "layers" in model:
        parts.append(f"{model['layers']} layers")
    return ", ".join([*parts, f"licence {found.provenance.licence or 'not stated'}"])


def _card(found: Findings, each: VariantFindings) -> dict[str, Any]:
    """A variant's figures, the most telling first."""
    total, parameters = each.sizes.total, found.provenance.model.get("parameters")
    figures = [
        (
            size(total),
            f"{percent(total / found.original.total, 0)} of the checkpoint" if found.original else "size",
        )
    ]
    if isinstance(parameters, int) and parameters > 0:
        figures.append((f"{8 * total / parameters:.2f}", "bits per weight, everything counted"))
    checks = {(c.question, c.measure): c.value for c in each.proof.checks} if each.proof else {}
    if each.evaluation and each.evaluation.kl_mean and each.evaluation.top1:
        figures.append((nats(each.evaluation.kl_mean.value), "nats of KL from the original"))
        figures.append((percent(each.evaluation.top1.value), "same likeliest token"))
    elif ("quality", "kl_mean") in checks:
        figures.append((nats(checks["quality", "kl_mean"]), "nats of KL from the original"))
        figures.append((percent(checks["quality", "top1"]), "same likeliest token"))
    speed = next((s for s in found.speeds if s.name.rpartition("/")[2] == each.name and s.decode), None)
    if speed is not None:
        depth, rate = next(iter(speed.decode.items()))
        figures.append((f"{rate.median:.3g}", f"tokens per second at depth {depth}"))
    return {
        "name": each.name,
        "engine": FORMATS[each.variant.format].runtime,
        "targets": ", ".join(each.variant.targets),
        "context": each.variant.context_length,
        "figures": figures,
    }


def _figures(evaluated: Sequence[VariantFindings]) -> list[tuple[str, list[str]]]:
    """Rows of the table of an evaluation: what, and a cell for each variant."""
    rows = (
        ("perplexity", "perplexity", 1.0, ""),
        ("the original's", "reference_perplexity", 1.0, ""),
        ("KL, mean (nats)", "kl_mean", 1.0, ""),
        ("KL, median", "kl_median", 1.0, ""),
        ("KL, 99th percentile", "kl_p99", 1.0, ""),
        ("same likeliest token", "top1", 100.0, "%"),
    )
    return [
        (label, [_cell(getattr(e.evaluation, key), f, unit) for e in evaluated])
        for label, key, f, unit in rows
    ]


def _cell(found: Estimate | None, factor: float, unit: str) -> str:
    return "" if found is None else estimate(found, factor, unit)


def _check(check: Check) -> dict[str, Any]:
    """A proof's figure beside its limit; `used` is how much of what the limit allows is used, 0 to 1."""
    if check.at_most:
        used = check.value / check.limit if check.limit else 1.0
        shown, limit = nats(check.value), f"at most {nats(check.limit)}"
    else:
        used = (1 - check.value) / (1 - check.limit) if check.limit < 1 else 1.0
        shown, limit = percent(check.value), f"at least {percent(check.limit, 0)}"
    what = {"kl_mean": "mean KL (nats)", "top1": "same likeliest token"}.get(check.measure, check.measure)
    return {
        "what": what,
        "value": shown,
        "limit": limit,
        "used": min(max(used, 0.0), 1.0),
        "passed": check.passed,
    }


def _recipes(variants: Sequence[VariantFindings]) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """(variants, recipe's name, columns, rows), one for each distinct recipe."""
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for each in variants:
        known = next((names for names, recipe in found if recipe == each.variant.recipe), None)
        if known is None:
            found.append(([each.name], each.variant.recipe))
        else:
            known.append(each.name)
    tables = []
    for names, recipe in found:
        rules = recipe["rules"]
        columns = list(dict.fromkeys(key for rule in rules for key in rule))
        columns.sort(key=lambda key: key != "pattern")
        rows = [[str(rule.get(key, "")) for key in columns] for rule in rules]
        tables.append((", ".join(names), str(recipe["name"]), columns, rows))
    return tables


def _notes(found: Findings) -> list[str]:
    notes = []
    for each in found.variants:
        if each.variant.approximate:
            notes.append(f"{each.name} is approximate, not the same model: {each.variant.approximate}")
        if each.facts.capped:
            notes.append(
                f"{each.name}: the context is capped at {each.variant.context_length}: {each.facts.capped}"
            )
        if each.proof is None:
            notes.append(f"{each.name}: not proven")
    return notes
