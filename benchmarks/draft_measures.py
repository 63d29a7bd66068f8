"""Greedy decoding with and without guesses, token for token, and how often a draft says what its target would."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edge.chat.speculation import Counts, Speculation
from edge.runtimes import Runtime

Logits = NDArray[np.float32]
RUNS = 15


@dataclass(frozen=True)
class Turn:
    """One answer: its tokens, and the seconds of those after the first, on the wall and of this process's CPU time."""

    tokens: tuple[int, ...]
    wall_s: float
    cpu_s: float
    counts: Counts | None


def answer(
    runtime: Runtime,
    prompt: Sequence[int],
    most: int,
    speculation: Speculation | None,
    *,
    stop: bool = True,
) -> Turn:
    """Greedy tokens after `prompt`, from an empty cache: `most` of them, or up to a stop token unless `stop` is off."""
    runtime.rewind(0)
    ids, ends = list(prompt), runtime.dialect().stop_ids if stop else ()
    logits = runtime.append(ids)
    if speculation:
        speculation.start(ids)
    wall, cpu = time.perf_counter(), time.process_time()
    while True:
        ids.append(int(np.argmax(logits)))
        if ids[-1] in ends or len(ids) == len(prompt) + most:
            break
        logits = speculation.append(ids) if speculation else runtime.append(ids[-1:])
    return Turn(
        tuple(ids[len(prompt) :]),
        time.perf_counter() - wall,
        time.process_time() - cpu,
        speculation.counts if speculation else None,
    )


def run_costs(
    model: Runtime, drafts: Mapping[str, Runtime], prompt: Sequence[int], most: int
) -> dict[str, float]:
    """Seconds of a run over those of the model's run of one token, medians of RUNS in turns: of the model's runs of
    2 to `most` tokens, by their number, and of a draft's run of one, by its name."""
    asked = {str(n): (model, n) for n in range(1, most + 1)} | {name: (d, 1) for name, d in drafts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for runtime in (model, *drafts.values()):
        runtime.rewind(0)
        runtime.append(prompt)
    for _ in range(RUNS):
        for name, (runtime, count) in asked.items():
            runtime.rewind(len(prompt))
            began = time.perf_counter()
            runtime.append_all([prompt[-1]] * count)
            seconds[name].append(time.perf_counter() - began)
    one = median(seconds.pop("1"))
    return {name: round(median(each) / one, 3) for name, each in seconds.items()}


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return found


def agreement(target: Logits, draft: Logits) -> dict[str, float]:
    """Means over positions, from logits [positions, vocab] of both over the same tokens.

    top1: the draft's likeliest token is the target's: how often a greedy guess is right. sampled: sum of
    min(p, q), the chance that a token drawn from the draft is accepted by the rule of arXiv 2211.17192 (its
    corollary 3.6: 1 - TV). drawn: p at the draft's likeliest token, the chance of our guesses when sampling.
    """
    p, q = probabilities(target), probabilities(draft)
    guess = q.argmax(axis=-1)
    return {
        "top1": float((p.argmax(axis=-1) == guess).mean()),
        "sampled": float(np.minimum(p, q).sum(axis=-1).mean()),
        "drawn": float(p[np.arange(len(p)), guess].mean()),
    }
