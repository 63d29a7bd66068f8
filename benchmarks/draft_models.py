"""The teacher's bundle, its answers, and two drafts of one shape: a cut, and what TED makes of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.draft_text import write_answers
from edge.chat import locate
from edge.cli.console import open_progress
from edge.convert import convert
from edge.distill import distill
from edge.distilling.plan import DistillRequest, Method
from edge.distilling.plan import plan as plan_distill
from edge.plan import plan as plan_convert
from edge.planned import ConvertRequest
from edge.sources import resolve


def make_bundle(checkpoint: str, target: str, output: Path) -> Path:
    """The artifact; converted where it is missing."""
    if not output.exists():
        # A cut that was not trained says nothing that a proof's limits were made for.
        request = ConvertRequest(checkpoint, (target,), output=output, allow_unproven=True)
        convert(plan_convert(request), open_progress(quiet=False))
    return locate.choose(output, None).path


def make_student(options: argparse.Namespace, method: Method, steps: int, rate: float, output: Path) -> None:
    if output.exists():
        return
    request = DistillRequest(
        options.teacher,
        options.directory / "answers.txt",
        output,
        method=method,
        layers=options.layers,
        keep=options.keep,
        steps=steps,
        filter_steps=options.filter_steps if method == "ted" else None,
        batch=options.batch,
        length=options.length,
        rate=rate,
        bf16=options.bf16,
        device=options.device,
    )
    progress = open_progress(quiet=False)
    distill(plan_distill(request, progress), progress)


def make(options: argparse.Namespace) -> dict[str, Path]:
    """Artifacts of the teacher and of the drafts `cut` and `ted`."""
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    paths = {"teacher": make_bundle(options.teacher, options.target, directory / "teacher-bundle")}
    tokenizer = resolve(options.teacher).directory / "tokenizer.json"
    text = directory / "answers.txt"
    tokens = write_answers(
        options.writer or paths["teacher"], tokenizer, options.samples, text, threads=options.threads
    )
    print(f"{text}: {tokens} tokens of the teacher's answers", file=sys.stderr)
    # One step at rate 0 trains nothing: the checkpoint that the student begins as.
    make_student(options, "ft", 1, 0.0, directory / "cut")
    make_student(options, "ted", options.steps, options.rate, directory / "ted")
    for name in ("cut", "ted"):
        paths[name] = make_bundle(str(directory / name), options.target, directory / f"{name}-bundle")
    return paths
