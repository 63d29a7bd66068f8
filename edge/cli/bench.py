"""`edge bench`: how fast is it, here?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.errors import BundleError, UnsupportedError
from edge.cli import console

if TYPE_CHECKING:
    from edge.benchmark import Contender

_DISTURBED = 0.03
"""Share of waiting for a core: alone on a machine it is under one percent."""


def bench(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="Bundle, GGUF file or genai folder, or a bundle's name.")
    ],
    versus: Annotated[
        str | None,
        typer.Option(
            "--vs",
            metavar="OTHER",
            help="Measure this one too, in turns, and print ratios. The same one twice shows the noise.",
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which variant of the bundle.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Prompt lengths. [default: 32,128,512, those that fit]"),
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", help="Context depths to decode at. [default: 0,512,2048, those that fit]"
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Repetitions of everything.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens decoded in a run.")] = 32,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads. [default: every core]")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Context length instead of the artifact's own.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write decode speed over depth as FILE.svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Measure load time, memory, first token, prefill and decoding.

    Each line is the median of the runs, then their smallest and largest. Decoding is compared with the memory's
    bandwidth, measured beside it with the same number of threads: at 100 % only fewer bytes would be faster.
    """
    from edge.benchmark import Request
    from edge.benchmark import bench as run
    from edge.cli.bench_page import chart, page

    if plot is not None and plot.suffix.lower() != ".svg":
        raise UnsupportedError(
            f"plots are written as SVG, and {plot.name} is none", hint=f"--plot {plot.with_suffix('.svg')}"
        )
    if plot is not None and not plot.parent.is_dir():
        raise UnsupportedError(
            f"{plot.parent} is no directory to write {plot.name} to", hint="make it, or name another"
        )
    words = [artifact] if versus is None else [artifact, versus]
    contenders = [contender(word, variant if word == artifact else None, context) for word in words]
    request = Request(
        tuple(contenders),
        prompts=_lengths("--prompts", prompts, 1),
        depths=_lengths("--depths", depths, 0),
        runs=runs,
        decoded_tokens=tokens,
        threads=threads,
    )
    progress = console.open_progress(quiet=as_json)
    data = run(request, progress).to_data()
    if data["waited_for_cores"] > _DISTURBED:
        progress.note(
            f"other programs disturbed it: the engine waited for a core {data['waited_for_cores']:.0%} of the time"
        )
    if plot is not None:
        plot.write_text(chart(data), encoding="utf-8")
    if as_json:
        console.write_json(data)
        return
    for line in page(data):
        console.write(line)


def contender(word: str, variant: str | None, context: int | None) -> Contender:
    """The artifact that `word` names, set up by its target's profile. BundleError when it names none."""
    from edge.benchmark import Contender
    from edge.chat import locate
    from edge.targets.settings import settings_for

    path = locate.find_model(word)
    if path is None:
        raise BundleError(
            f"'{word}' is no bundle, GGUF file or genai folder", hint=f"edge inspect {word}, or edge convert"
        )
    chosen = locate.choose(path, variant)
    settings = settings_for(chosen.path, chosen.targets)
    return Contender(chosen.path, chosen.label, context or chosen.context_length, settings)


def _lengths(option: str, text: str | None, least: int) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and least <= int(word) <= 1 << 30 for word in words):
        raise UnsupportedError(
            f"{option} {text}: not a list of numbers from {least} on", hint=f"{option} {least},128"
        )
    return tuple(int(word) for word in words)
