"""Run one artifact over the windows of a text beside its reference, and gather every prediction's numbers."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.evaluation.engine import Engine
from edge.evaluation.pointwise import Logits, Scores, probabilities, score
from edge.evaluation.reference import Reference
from edge.evaluation.result import Candidate, Evaluation, Positions, Worst
from edge.evaluation.statistics import mean, perplexity, quantile, share
from edge.evaluation.windows import Windows
from edge.progress import Progress

KEPT_WORST = 50
_CANDIDATES = 5


def compare(
    engine: Engine, reference: Reference | None, windows: Windows, *, text: str, progress: Progress
) -> Evaluation:
    """Teacher-forced over all windows, one at a time. The reference must be prepared.

    Raises UnsupportedError for logits that are no numbers (window and position named), and what the engines raise.
    """
    progress.stage(f"{engine.name}: {text}", windows.ids.size, "tokens")
    scores: list[Scores] = []
    worst: list[tuple[float, int, Worst]] = []
    for index, (logits, base) in enumerate(_side_by_side(engine, reference, windows)):
        _check(engine.name, logits, windows, index)
        if base is not None and reference is not None:
            _check(reference.name, base, windows, index)
        scores.append(score(logits, base, windows.targets[index]))
        if base is not None:
            _keep_worst(worst, scores[-1], logits, base, windows, index)
        progress.advance(windows.length)
    kept = tuple(entry for _, _, entry in sorted(worst, key=lambda item: (-item[0], item[1])))
    return _summary(engine, reference, windows, scores, kept, text)


def _side_by_side(
    engine: Engine, reference: Reference | None, windows: Windows
) -> Iterator[tuple[Logits, Logits | None]]:
    # The reference first: while it computes, the engine is at work on the same window.
    own = engine.logits(windows)
    if reference is None:
        yield from ((logits, None) for logits in own)
        return
    for base in reference.logits(windows):
        yield next(own), base


def _check(name: str, logits: Logits, windows: Windows, index: int) -> None:
    finite = np.isfinite(logits).all(-1)
    if not finite.all():
        position = windows.first + int((~finite).argmax())
        raise UnsupportedError(
            f"{name}: logits that are no numbers, first in window {index} at position {position}",
            hint="edge verify BUNDLE; convert it again",
        )


def _keep_worst(
    worst: list[tuple[float, int, Worst]],
    scores: Scores,
    logits: Logits,
    base: Logits,
    windows: Windows,
    index: int,
) -> None:
    """A heap of the KEPT_WORST largest KL: (kl, order, entry), ties to the earlier prediction."""
    assert scores.kl is not None
    for j in np.argsort(-scores.kl, kind="stable")[:KEPT_WORST].tolist():
        kl = float(scores.kl[j])
        if len(worst) == KEPT_WORST and kl <= worst[0][0]:
            return
        entry = Worst(
            index, windows.first + j, kl, int(windows.targets[index, j]), _candidates(base[j], logits[j])
        )
        item = (kl, -(index * windows.length + j), entry)
        heapq.heappushpop(worst, item) if len(worst) == KEPT_WORST else heapq.heappush(worst, item)


def _candidates(base: Logits, logits: Logits) -> tuple[Candidate, ...]:
    """The likeliest tokens of both, by the larger of their two probabilities."""
    p, q = probabilities(base), probabilities(logits)
    larger = np.maximum(p, q)
    tokens = np.argsort(-larger, kind="stable")[:_CANDIDATES]
    return tuple(Candidate(int(t), float(p[t]), float(q[t])) for t in tokens)


def _summary(
    engine: Engine,
    reference: Reference | None,
    windows: Windows,
    scores: list[Scores],
    worst: tuple[Worst, ...],
    text: str,
) -> Evaluation:
    nll = np.stack([s.nll for s in scores])
    base = _stacked([s.reference_nll for s in scores])
    kl = _stacked([s.kl for s in scores])
    same = [s.same_top for s in scores if s.same_top is not None]
    tokens = set(windows.ids.reshape(-1).tolist()) | {c.token for w in worst for c in w.candidates}
    known = sorted(tokens)
    positions = Positions(
        windows,
        nll.astype(np.float32),
        None if base is None else base.astype(np.float32),
        None if kl is None else kl.astype(np.float32),
        worst,
        dict(zip(known, engine.pieces(known), strict=True)),
    )
    return Evaluation(
        artifact=engine.name,
        runtime=engine.runtime,
        reference=None if reference is None else reference.name,
        reference_runtime=None if reference is None else reference.runtime,
        text=text,
        perplexity=perplexity(nll),
        reference_perplexity=None if base is None else perplexity(base),
        ln_ratio=None if base is None else mean(nll - base),
        kl_mean=None if kl is None else mean(kl),
        kl_median=None if kl is None else quantile(kl, 0.5),
        kl_p99=None if kl is None else quantile(kl, 0.99),
        kl_max=None if kl is None else float(kl.max()),
        top1=share(np.stack(same)) if same else None,
        positions=positions,
    )


def _stacked(rows: list[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    found = [row for row in rows if row is not None]
    return np.stack(found) if found else None
