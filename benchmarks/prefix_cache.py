"""Time to the first token with a long system message: read anew, kept on disk, and none at all, in turns.

    python -m benchmarks.prefix_cache bundles/NAME --variant gguf-int4 [--tokens 1000] [--threads 2] [--runs 5]

What a person feels is the wall time; the CPU time beside it is not stretched by other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.chat import faster, locate
from edge.chat.identity import model_hash
from edge.chat.prefix import PrefixCache
from edge.chat.session import Session, Settings
from edge.chat.state_store import StateStore
from edge.runtimes import Runtime, open_runtime

QUESTION = "What is an edge device?"
WORDS = "You are a patient guide. You answer in one short sentence, and you never invent a fact. "


def system_message(runtime: Runtime, tokens: int) -> str:
    """About `tokens` tokens of text."""
    return WORDS * (tokens // len(runtime.encode(WORDS, special=False)))


def first_token(runtime: Runtime, system: str | None, prefix: PrefixCache) -> dict[str, Any]:
    """Of a chat that begins: an empty cache, one question, one token."""
    runtime.rewind(0)
    session = Session(runtime, settings=Settings(seed=1, max_tokens=1), system=system, prefix=prefix)
    cpu = time.process_time()
    text = "".join(session.ask(QUESTION))
    cpu = time.process_time() - cpu
    answer = session.last
    assert answer is not None
    return {"wall_s": answer.first_token_s, "cpu_s": cpu, "tokens": answer.prompt_tokens, "text": text}


def measure(chosen: locate.Chosen, runtime: Runtime, tokens: int, runs: int) -> dict[str, Any]:
    """Medians of each way, and of the ratio of a kept prefix to no system message, taken run by run."""
    system = system_message(runtime, tokens)
    with tempfile.TemporaryDirectory() as directory:

        def cache(store: StateStore | None) -> PrefixCache:
            return PrefixCache(store, lambda: model_hash(chosen.path, chosen.sha256), print)

        store = StateStore(Path(directory), print)
        first_token(runtime, None, cache(None))  # pages of the weights
        saving = first_token(runtime, system, cache(store))
        ways: dict[str, list[dict[str, Any]]] = {"cold": [], "kept": [], "empty": []}
        for _ in range(runs):
            ways["empty"].append(first_token(runtime, None, cache(None)))
            ways["kept"].append(first_token(runtime, system, cache(store)))
        ways["cold"].append(first_token(runtime, system, cache(None)))
        size = sum(file.stat().st_size for file in Path(directory).iterdir())
    assert ways["cold"][0]["text"] == ways["kept"][0]["text"] == saving["text"]
    table: dict[str, Any] = {"engine": runtime.name, "state_bytes": size}
    for name, found in ways.items():
        table[name] = {"tokens": found[0]["tokens"]} | {
            key: round(statistics.median(each[key] for each in found), 4) for key in ("wall_s", "cpu_s")
        }
    pairs = list(zip(ways["kept"], ways["empty"], strict=True))
    table["kept_to_empty"] = {
        key: round(statistics.median(kept[key] / empty[key] for kept, empty in pairs), 3)
        for key in ("wall_s", "cpu_s")
    }
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--variant")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args(arguments)
    chosen = locate.choose(asked.model, asked.variant)
    runtime = open_runtime(chosen.path, context_length=2048, threads=asked.threads)
    if faster.prefix_cache(runtime, chosen, True, print) is None:
        return
    table = measure(chosen, runtime, asked.tokens, asked.runs)
    sys.stdout.write(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
