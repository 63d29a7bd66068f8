"""One engine with one artifact, timed from within: `python -m edge.benchmarking.worker`, a process of its own.

What to do comes as lines of JSON on stdin, each is answered by one on stdout; the end of stdin ends the process
at once. The first line says what to open: {artifact, context_length, settings, seed}. What cannot be done is
told as {error, cause, hint}, or {machine} where memory or the disk gave out, and ends the process.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import EdgeError
from edge import machine
from edge.formats import GENAI, LLAMA_CPP
from edge.runtimes import EngineSettings, Perceiving, Runtime, open_runtime


def _main() -> None:
    # Native code may print: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = _requests()
    try:
        for answer in _answers(asked):
            print(json.dumps(answer), file=answers, flush=True)
    except EdgeError as error:
        told = {"error": type(error).__name__, "cause": error.cause, "hint": error.hint}
        print(json.dumps(told), file=answers, flush=True)
    except (OSError, MemoryError) as problem:
        print(json.dumps({"machine": str(problem) or type(problem).__name__}), file=answers, flush=True)


def _requests() -> Iterator[dict[str, Any]]:
    """The lines of stdin. Read in a thread: when whoever asks is gone, a long run must not go on for nobody."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def _answers(asked: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    first = next(asked)
    artifact = Path(first["artifact"])
    _import_engine(artifact)
    before = machine.peak_memory()
    began = time.perf_counter()
    settings = EngineSettings.from_data(first["settings"])
    runtime = open_runtime(artifact, context_length=first["context_length"], settings=settings)
    # A mapped file is read when it is used: loaded is what has run a token.
    runtime.append([0])
    seconds = time.perf_counter() - began
    yield {
        "seconds": seconds,
        "runtime": runtime.name,
        "context_length": runtime.context_length,
        "vocab_size": runtime.vocab_size,
        "bytes_before": before,
    }
    ids = _random_ids(runtime, int(first["seed"]))
    for request in asked:
        yield _run(runtime, ids, request)


def _import_engine(artifact: Path) -> None:
    """The library counts as the process, not as the model: neither in its time nor in its memory."""
    module = (GENAI if artifact.is_dir() else LLAMA_CPP).module
    if find_spec(module) is not None:
        import_module(module)


def _random_ids(runtime: Runtime, seed: int) -> list[int]:
    """As many as the context holds. Any token costs the same in a dense model, and random ones suit every model but for
    the places of images and recordings, which are among those that end an answer."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(runtime.vocab_size, size=runtime.context_length)
    if isinstance(runtime, Perceiving):
        ids[np.isin(ids, list(runtime.dialect().stop_ids))] = 0
    return [int(i) for i in ids]


def _run(runtime: Runtime, ids: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """`prompt`: run so many tokens from an empty cache. `fill`: bring the cache to a depth, reusing what it holds.
    `decode`: so many tokens, one by one, after `depth` others and one that is not timed. `memory`: the peak.
    Processor time is that of all threads."""
    what = request["do"]
    if what == "memory":
        return {"bytes": machine.peak_memory()}
    if what == "fill":
        depth = request["depth"]
        if runtime.position < depth:
            runtime.append(ids[runtime.position : depth])
        runtime.rewind(depth)
        return {}
    if what == "prompt":
        runtime.rewind(0)
        fed = [ids[: request["tokens"]]]
    else:
        depth, count = request["depth"], request["tokens"]
        runtime.rewind(depth)
        runtime.append(ids[depth : depth + 1])
        fed = [[token] for token in ids[depth + 1 : depth + 1 + count]]
    waited, used, began = _waited(), time.process_time(), time.perf_counter()
    for some in fed:
        runtime.append(some)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - used,
        "waited_seconds": min(seconds, _waited() - waited),
    }


def _waited() -> float:
    """Seconds that this thread was ready to run and had no core (Linux, sched-stats); 0 where nobody counts."""
    file = Path("/proc/self/schedstat")
    return int(file.read_text(encoding="ascii").split()[1]) / 1e9 if file.is_file() else 0.0


if __name__ == "__main__":
    _main()
