"""A TED student as the draft model of its teacher: `python -m benchmarks.draft DIR`.

The embedded default's own answers (those that calibration ships with, and --samples more) teach a student of a few
layers (`edge distill --method ted`). Beside it stands the cut that the student began as. Teacher and both drafts
are converted for one target; then the first --prompts questions of chat_answers.jsonl, none of which was trained on,
are answered greedily by the teacher alone, with prompt lookup and with each draft, in turns. Every token must be the
same. Also told: how often a draft is right at each position of those answers, and what a run costs of several tokens
or of a draft, where the model's run of one token is 1.

Everything made is kept in DIR, and a rerun takes what is there; the last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.draft_measures import Turn, agreement, answer, run_costs
from benchmarks.draft_models import make
from edge.chat.drafts import DraftModel, PromptLookup, check_vocabulary
from edge.chat.prompt import PromptFormat
from edge.chat.speculation import Speculation
from edge.cli.console import table
from edge.runtimes import Runtime, open_runtime

QUESTIONS = Path(__file__).with_name("chat_answers.jsonl")
CONTEXT = 1024


def compare(
    runtime: Runtime, ways: Mapping[str, Speculation | None], prompts: Sequence[Sequence[int]], options: Any
) -> tuple[dict[str, Any], list[list[int]]]:
    """Every way over every prompt, in turns; and the answers. AssertionError where one token is another."""
    turns: dict[str, list[list[Turn]]] = {name: [] for name in ways}
    answers: list[list[int]] = []
    for prompt in prompts:
        found = {name: [] for name in ways}  # type: dict[str, list[Turn]]
        for _ in range(options.runs):
            for name, speculation in ways.items():
                found[name].append(answer(runtime, prompt, options.tokens, speculation))
        plain = found["alone"][0].tokens
        for name, each in found.items():
            assert all(turn.tokens == plain for turn in each), f"{name}: another answer"
            turns[name].append(each)
        answers.append([*prompt, *plain])
    return {name: summary(turns[name], turns["alone"]) for name in ways}, answers


def summary(turns: Sequence[Sequence[Turn]], alone: Sequence[Sequence[Turn]]) -> dict[str, Any]:
    """Over all prompts: guesses, and seconds as a ratio to the teacher alone (over 1: faster), best run of each."""
    tokens = sum(len(each[0].tokens) - 1 for each in turns)
    counts = [each[0].counts for each in turns]
    guessed = sum(c.drafted for c in counts if c)
    row: dict[str, Any] = {
        "tokens": tokens,
        "guessed": guessed,
        "right": sum(c.accepted for c in counts if c),
        "runs": sum(c.steps for c in counts if c) or tokens,
    }
    row["acceptance"] = round(row["right"] / guessed, 4) if guessed else None
    row["tokens_per_run"] = round(tokens / row["runs"], 3)
    for clock in ("wall_s", "cpu_s"):
        own, others = ([min(getattr(t, clock) for t in each) for each in some] for some in (turns, alone))
        ratios = [a / b for a, b in zip(others, own, strict=True)]
        row[clock.replace("_s", "_ratio")] = round(sum(others) / sum(own), 3)
        row[clock.replace("_s", "_ratios")] = [round(min(ratios), 3), round(max(ratios), 3)]
        row[f"tokens_per_{clock}"] = round(tokens / sum(own), 1)
    return row


def nbytes(artifact: Path) -> int:
    files = [artifact] if artifact.is_file() else [f for f in artifact.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files)


def run(options: argparse.Namespace) -> dict[str, Any]:
    paths = make(options)
    asked = [json.loads(line)["user"] for line in QUESTIONS.read_text().splitlines()][: options.prompts]
    with ExitStack() as stack:

        def opened(name: str) -> Runtime:
            runtime = open_runtime(paths[name], context_length=CONTEXT, threads=options.threads)
            stack.callback(runtime.close)
            return runtime

        runtime, drafts = opened("teacher"), {name: opened(name) for name in ("cut", "ted")}
        notes: list[str] = []
        ways: dict[str, Speculation | None] = {"alone": None}
        ways["lookup"] = Speculation(runtime, PromptLookup(), options.guesses, notes.append)
        for name, draft in drafts.items():
            check_vocabulary(runtime, draft)
            ways[name] = Speculation(runtime, DraftModel(draft, options.least), options.guesses, notes.append)
        prompted = PromptFormat(runtime, runtime.dialect())
        prompts = [prompted.ids([{"role": "user", "content": question}]) for question in asked]
        costs = run_costs(runtime, drafts, prompts[0], options.guesses + 1)
        rows, answers = compare(runtime, ways, prompts, options)
        rights = {name: [] for name in drafts}  # type: dict[str, list[dict[str, float]]]
        for prompt, whole in zip(prompts, answers, strict=True):
            first = len(prompt) - 1
            target = runtime.teacher_forced(whole, first=first)
            for name, draft in drafts.items():
                rights[name].append(agreement(target, draft.teacher_forced(whole, first=first)))
        engine = runtime.name
    return {
        "engine": engine,
        "target": options.target,
        "guesses": options.guesses,
        "least": options.least,
        "bytes": {name: nbytes(path) for name, path in paths.items()},
        "ways": rows,
        "agreement": {
            name: {key: round(statistics.mean(r[key] for r in each), 4) for key in each[0]}
            for name, each in rights.items()
        },
        "run_costs": costs,
        "same_tokens": True,
        "notes": sorted(set(notes)),
    }


def printed(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, row in result["ways"].items():
        share = "" if row["acceptance"] is None else f"{100 * row['acceptance']:.1f} %"
        right = result["agreement"].get(name)
        low, high = row["wall_ratios"]
        lines.append(
            [
                name,
                f"{result['bytes'][name] / 1e6:.1f}" if name in result["bytes"] else "",
                f"{row['right']} of {row['guessed']}" if share else "",
                share,
                f"{row['tokens_per_run']:.2f}",
                f"{row['wall_ratio']:.2f} ({low:.2f} to {high:.2f})",
                f"{row['cpu_ratio']:.2f}",
                *(f"{100 * right[key]:.1f} %" if right else "" for key in ("top1", "sampled")),
            ]
        )
    heads = ["guesses by", "MB", "right", "accepted", "tokens a run", "speed, wall", "CPU", "top-1", "1 - TV"]
    return table(heads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--teacher", default="smollm2-135m-instruct")
    parser.add_argument("--target", default="android")
    parser.add_argument("--writer", type=Path, help="a GGUF of the teacher, if the target makes none")
    parser.add_argument("--samples", type=int, default=0, help="more answers to learn from")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--keep", choices=("even", "ends"), default="ends")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--filter-steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--guesses", type=int, default=4)
    parser.add_argument("--least", type=float, default=0.0, help="probability that a draft must give a guess")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    result = run(parser.parse_args())
    print("\n".join(printed(result)))
    costs = ", ".join(f"{name}: {cost:.2f}" for name, cost in result["run_costs"].items())
    print(f"a run of so many tokens, or of a draft, over one of one token: {costs}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
