"""`edge bench`: how fast an artifact loads, answers and generates here, and how near decoding is to the memory's speed.

Each artifact lives in a process of its own; with two, every repetition measures one and then the other, so that
what else the machine does falls on both. Prompts and depths are random tokens: a dense model takes the same time
for any. `Benchmark.to_data` (what `--json` prints):

    machine {system, processor, cores, memory_bytes, instruction_sets}, threads, runs, decoded_tokens, seed,
    peak_memory_from, waited_for_cores (share of the time), last_level_cache_bytes, bandwidth {bytes_per_s},
    artifacts [{name, runtime, settings, context_length, file_bytes, weight_bytes_per_token, kv_bytes_per_position,
                load {seconds}, memory {peak_bytes, before_load_bytes},
                prompts [{tokens, first_token_s, tokens_per_s}],
                depths [{depth, tokens_per_s, bytes_per_token, bandwidth_share}]}],
    ratios {load_s, peak_bytes, first_token_s [{tokens, ...}], decode_tokens_per_s [{depth, ...}]} or null

Seconds, speeds, shares and ratios are {median, min, max, q1, q3, samples}, but for the ratio of peak_bytes. A ratio
is the first artifact's value over the second's, run by run. Of an engine from outside, whose files are not known
here, file_bytes, the bytes of a token and the share are null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge import machine
from edge.benchmarking.bandwidth import Bandwidth
from edge.benchmarking.lengths import Lengths, fitting
from edge.benchmarking.results import Benchmark, Measured
from edge.benchmarking.room import check_memory
from edge.benchmarking.subject import Contender, Live, load
from edge.benchmarking.turns import Run, take_turns
from edge.progress import Progress

__all__ = ["Benchmark", "Contender", "Request", "bench"]


@dataclass(frozen=True)
class Request:
    """What to measure: one contender, or two to be compared. `prompts` and `depths`: None takes those of the
    defaults that the context holds. `threads` goes before those of the contenders' settings."""

    contenders: tuple[Contender, ...]
    prompts: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    runs: int = 5
    threads: int | None = None
    decoded_tokens: int = 32
    seed: int = 0


def bench(request: Request, progress: Progress) -> Benchmark:
    """Measure. Raises what loading raises, UnsupportedError for lengths that no context holds, MachineError when
    the memory does not suffice or an engine is ended for want of it."""
    contenders = [_with_threads(each, request.threads) for each in request.contenders]
    threads = max(each.settings.threads or 1 for each in contenders)
    check_memory(contenders)
    live, loads = load(contenders, seed=request.seed, runs=request.runs, progress=progress)
    try:
        lengths = fitting(
            [each.subject for each in live], request.prompts, request.depths, request.decoded_tokens, progress
        )
        with Bandwidth(threads) as memory:
            prompts, depths = _run(request, lengths, live, memory, progress)
        progress.done()
        measured = tuple(
            Measured(
                each.subject,
                loads[i],
                each.process.ask(do="memory")["bytes"],
                {tokens: runs[i] for tokens, runs in prompts.items()},
                {depth: runs[i] for depth, runs in depths.items()},
                request.decoded_tokens,
            )
            for i, each in enumerate(live)
        )
    finally:
        for opened in live:
            opened.process.close()
    return Benchmark(measured, threads, request.runs, request.decoded_tokens, request.seed)


def _with_threads(contender: Contender, threads: int | None) -> Contender:
    """Every core where nobody chose: the bandwidth is to be measured with the same number, so it must be known."""
    chosen = threads or contender.settings.threads or machine.cores()
    settings = replace(contender.settings, threads=chosen)
    return replace(contender, settings=replace(settings, prefill_threads=None) if threads else settings)


def _run(
    request: Request, lengths: Lengths, live: Sequence[Live], memory: Bandwidth, progress: Progress
) -> tuple[dict[int, list[tuple[Run, ...]]], dict[int, list[tuple[Run, ...]]]]:
    """Prompt length -> runs of each engine, and depth -> the same. Depths grow, so each fill goes on from the last."""
    prompts, depths, turns = {}, {}, request.runs * len(live)
    for tokens in lengths.prompts:
        progress.stage(f"prompt of {tokens} tokens", turns, "runs")
        prompts[tokens] = take_turns(live, request.runs, memory, progress, do="prompt", tokens=tokens)
    for depth in lengths.depths:
        progress.stage(f"decoding at depth {depth}", turns, "runs")
        for each in live:
            each.process.ask(do="fill", depth=depth)
        asked = {"do": "decode", "depth": depth, "tokens": request.decoded_tokens}
        depths[depth] = take_turns(live, request.runs, memory, progress, **asked)
    return prompts, depths
