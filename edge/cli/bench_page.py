"""The report of `edge bench` as lines, and its plot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.errors import UnsupportedError
from edge.charts import Series, line_chart
from edge.cli import console


def page(data: dict[str, Any]) -> Iterator[str]:
    """The lines of a report on `edge.benchmark.Benchmark.to_data`."""
    yield (
        f"{data['threads']} threads on {data['machine']['cores']} cores, {data['runs']} runs: "
        "median (smallest to largest)"
    )
    yield f"memory reads at {_spread(data['bandwidth']['bytes_per_s'], 1e-9, 'GB/s')}"
    for each in data["artifacts"]:
        yield ""
        yield from _artifact(each, data)
    if data["ratios"]:
        yield ""
        yield from _ratios(data)


def _artifact(each: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    yield f"{console.clean(each['name'])}: {each['runtime']}, context {each['context_length']}"
    memory = each["memory"]
    yield (
        f"load {_spread(each['load']['seconds'], 1, 's')}; peak memory {console.size(memory['peak_bytes'])} "
        f"({data['peak_memory_from']}), {console.size(memory['before_load_bytes'])} before the load"
    )
    if each["file_bytes"] is not None:
        yield (
            f"file {console.size(each['file_bytes'])}; a token reads {console.size(each['weight_bytes_per_token'])} "
            f"of weights and {console.size(each['kv_bytes_per_position'])} for each position before it"
        )
    cache = data["last_level_cache_bytes"]
    rows = [
        (str(p["tokens"]), _spread(p["first_token_s"], 1, "s"), _spread(p["tokens_per_s"], 1, "tok/s"))
        for p in each["prompts"]
    ]
    yield from console.table(("prompt", "first token", "prefill"), rows) if rows else ()
    rows = [
        (str(d["depth"]), _spread(d["tokens_per_s"], 1, "tok/s"), _share(d, cache)) for d in each["depths"]
    ]
    yield from console.table(("depth", "decode", "of the memory's bandwidth"), rows) if rows else ()


def _ratios(data: dict[str, Any]) -> Iterator[str]:
    first, second = (console.clean(each["name"]) for each in data["artifacts"])
    ratios = data["ratios"]
    yield f"{first} over {second}"
    rows = [
        ("load, time", _spread(ratios["load_s"], 1, "x")),
        ("peak memory", f"{ratios['peak_bytes']:.3g} x"),
    ]
    rows += [(f"first token of {r['tokens']}, time", _spread(r, 1, "x")) for r in ratios["first_token_s"]]
    rows += [(f"decode at {r['depth']}, speed", _spread(r, 1, "x")) for r in ratios["decode_tokens_per_s"]]
    yield from console.table(("", "ratio"), rows)


def _spread(spread: dict[str, Any], scale: float, unit: str) -> str:
    if unit == "s" and spread["median"] < 1:
        scale, unit = 1000, "ms"
    low, middle, high = (_figure(spread[key] * scale) for key in ("min", "median", "max"))
    return f"{middle} {unit} ({low} to {high})"


def _figure(value: float) -> str:
    """Three digits, as noise allows no more."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _share(row: dict[str, Any], cache: int) -> str:
    if row["bandwidth_share"] is None:
        return "unknown format"
    if row["bytes_per_token"] < cache:
        return "fits in the processor's cache"
    return _spread(row["bandwidth_share"], 100, "%")


def chart(data: dict[str, Any]) -> str:
    """Decode speed over depth as a standalone SVG, a line for each artifact, with the spread of each point.

    UnsupportedError when no depth was measured.
    """
    if not data["artifacts"][0]["depths"]:
        raise UnsupportedError(
            "no depth was measured, so there is nothing to plot", hint="a larger --context"
        )
    series = [
        Series(
            each["name"],
            [d["depth"] for d in each["depths"]],
            *([d["tokens_per_s"][key] for d in each["depths"]] for key in ("median", "min", "max")),
        )
        for each in data["artifacts"]
    ]
    return line_chart(series, title="Decode speed", x_label="tokens before", y_label="tokens per second")
