"""What benchmarks/pareto.py measures of one artifact: bytes, divergence from the float model, decoding speed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.draft_measures import answer, probabilities
from converters.checkpoint import Checkpoint
from edge.bundle import load
from edge.cli.console import open_progress
from edge.evaluate import CheckpointReference
from edge.evaluation.statistics import Estimate, mean
from edge.evaluation.windows import Windows, cut, read_text
from edge.runtimes import Runtime, open_runtime
from edge.runtimes.protocol import Adaptable
from edge.sources import resolve

Row = dict[str, Any]
PROMPT = 16
"""Tokens before those whose decoding is timed; any will do for a dense model."""


@dataclass(frozen=True)
class Subject:
    """An artifact, and the adapter that it answers with. nbytes: of both."""

    name: str
    path: Path
    adapter: str | None
    nbytes: int

    @classmethod
    def of(cls, name: str, bundle: Path) -> Subject:
        """The first variant of the bundle, with its only adapter if it has one."""
        variant = load(bundle).variants[0]
        files = (
            [variant.path] if variant.path.is_file() else [f for f in variant.path.rglob("*") if f.is_file()]
        )
        runtime = open_runtime(variant.path, context_length=PROMPT)
        names = runtime.adapters if isinstance(runtime, Adaptable) else ()
        runtime.close()
        beside = [f for n in names for f in bundle.rglob(f"*{n}*") if f.is_file() and f not in files]
        return cls(
            name, variant.path, names[0] if names else None, sum(f.stat().st_size for f in files + beside)
        )

    def open(self, context: int, threads: int, *, exact: bool) -> Runtime:
        runtime = open_runtime(self.path, context_length=context, threads=threads, exact=exact)
        if self.adapter is not None:
            assert isinstance(runtime, Adaptable)
            runtime.use_adapter(self.adapter)
        return runtime


@dataclass(frozen=True)
class Reference:
    """The float checkpoint's logits at the scored positions, one [scored, vocab] a window."""

    windows: Windows
    logits: Sequence[NDArray[np.float32]]


def reference_of(model: str, text: Path, windows: int, length: int) -> Reference:
    with Checkpoint.open(resolve(model).directory) as checkpoint:
        found = CheckpointReference(checkpoint, name=model)
        ids = found.encode(read_text(text)[: windows * length * 12])
        chosen = cut(ids, length=length, bos=found.bos, most=windows, name=text.name)
        progress = open_progress(quiet=False)
        found.prepare([chosen], progress)
        progress.done()
        return Reference(chosen, list(found.logits(chosen)))


def divergences(subject: Subject, reference: Reference, threads: int) -> Estimate:
    """Mean KL(float || artifact) in nats over the scored predictions, with its standard error."""
    windows = reference.windows
    runtime = subject.open(windows.length, threads, exact=True)
    each = []
    for ids, target in zip(windows.ids, reference.logits, strict=True):
        own = runtime.teacher_forced([int(i) for i in ids], first=windows.first)[:-1]
        p, q = probabilities(target), probabilities(own)
        each.append((p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300)))).sum(axis=-1))
    runtime.close()
    return mean(np.concatenate(each))


def decode_ratios(subject: Subject, first: Subject, options: argparse.Namespace) -> list[float]:
    """Tokens a second over those of `first`, of the runs in turns; one of each goes before and does not count."""
    context = PROMPT + options.tokens + 1
    both = [each.open(context, options.threads, exact=False) for each in (first, subject)]
    prompt = list(range(100, 100 + PROMPT))
    ratios = []
    for _ in range(options.runs + 1):
        base, own = (answer(runtime, prompt, options.tokens, None, stop=False) for runtime in both)
        ratios.append(base.wall_s / own.wall_s)
    for runtime in both:
        runtime.close()
    return ratios[1:]
