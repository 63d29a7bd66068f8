"""Speculative decoding beside plain decoding, in turns: tok/s, their ratio, and whether the answers are the same.

    python -m benchmarks.speculative bundles/NAME [--draft MODEL] [--threads 2] [--runs 3] [--tokens 128]

Prompt lookup unless a draft model is named. One prompt asks for its own text again, as summaries, edits of
code and answers about a document do; the other asks for something new. Beside wall time stands the CPU time
of the process, which other work on the machine does not stretch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.chat import locate
from edge.chat.drafts import Drafter, DraftModel, PromptLookup, check_vocabulary
from edge.chat.session import Session, Settings
from edge.chat.speculation import Speculation
from edge.runtimes import Runtime, open_runtime

TEXT = (
    "def area(shape):\n    if shape.kind == 'circle':\n        return 3.14159 * shape.radius ** 2\n"
    "    if shape.kind == 'square':\n        return shape.side ** 2\n"
    "    if shape.kind == 'rectangle':\n        return shape.width * shape.height\n"
    "    raise ValueError(shape.kind)\n"
)
PROMPTS = {
    "repeat": f"Repeat this code exactly, then repeat it again:\n\n{TEXT}",
    "new": "Write a story about a lighthouse keeper who finds a letter in a bottle.",
}


def turn(runtime: Runtime, prompt: str, tokens: int, speculation: Speculation | None) -> dict[str, Any]:
    """One answer from an empty cache; seconds are those of the tokens after the first."""
    runtime.rewind(0)
    session = Session(runtime, settings=Settings(seed=1, max_tokens=tokens), speculation=speculation)
    stream, cpu = session.ask(prompt), 0.0
    for i, _ in enumerate(stream):
        if i == 0:
            cpu = time.process_time()
    cpu = time.process_time() - cpu
    answer = session.last
    assert answer is not None
    return {
        "text": answer.text,
        "tokens_per_s": answer.answer_tokens_per_s,
        "tokens_per_cpu_s": (answer.answer_tokens - 1) / cpu,
        "counts": answer.speculation.to_data() if answer.speculation else None,
    }


def compare(
    runtime: Runtime, drafter: Drafter, most: int, runs: int, tokens: int, *, exact: bool
) -> dict[str, Any]:
    """Both ways alternately, `runs` times each prompt."""
    notes: list[str] = []
    speculation = Speculation(runtime, drafter, most, notes.append, exact=exact)
    table: dict[str, Any] = {"engine": runtime.name, "drafter": drafter.name, "guesses": most}
    for name, prompt in PROMPTS.items():
        pairs = [
            (turn(runtime, prompt, tokens, None), turn(runtime, prompt, tokens, speculation))
            for _ in range(runs)
        ]
        table[name] = {
            "same_answer": all(plain["text"] == guessed["text"] for plain, guessed in pairs),
            **pairs[-1][1]["counts"],
            **{
                key: {
                    "plain": round(statistics.median(plain[key] for plain, _ in pairs), 2),
                    "speculative": round(statistics.median(guessed[key] for _, guessed in pairs), 2),
                    "ratio": round(
                        statistics.median(guessed[key] / plain[key] for plain, guessed in pairs), 3
                    ),
                }
                for key in ("tokens_per_s", "tokens_per_cpu_s")
            },
        }
    return table | {"notes": notes}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--variant")
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--guesses", type=int, default=8)
    parser.add_argument("--inexact", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    asked = parser.parse_args(arguments)
    runtime = open_runtime(
        locate.choose(asked.model, asked.variant).path, context_length=2048, threads=asked.threads
    )
    drafter: Drafter = PromptLookup()
    if asked.draft:
        draft = open_runtime(
            locate.choose(asked.draft, None).path, context_length=2048, threads=asked.threads
        )
        check_vocabulary(runtime, draft)
        drafter = DraftModel(draft)
    table = compare(runtime, drafter, asked.guesses, asked.runs, asked.tokens, exact=not asked.inexact)
    sys.stdout.write(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
