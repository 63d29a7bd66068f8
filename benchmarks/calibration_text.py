"""Make the default calibration text: `python -m benchmarks.calibration_text WORK`.

Calibrating needs text of the kinds that a model meets, and a text that ships must be free. Two files:

- quant/calibration_chats.jsonl: questions of calibration_seeds.toml with the embedded default's own answers
  (SmolLM2-135M-Instruct, Apache-2.0; samples of a model fit its activations, as arXiv 2305.17888 shows), at
  temperature 1. They are rendered with the template of the model that is calibrated.
- quant/calibration.txt: texts free of copyright (benchmarks/free_texts.py), prose and lists that the default wrote
  from openings of the seeds, sums with right results, and code of this project, in random order: every stretch
  holds some of everything.

Every sample has a seed of its own; the same llama.cpp on the same kind of processor gives the same text.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.free_texts import addresses, chapters, countries, declarations
from benchmarks.generate import write
from edge.sources import resolve

MODEL = "smollm2-135m-instruct"
SEEDS = Path(__file__).with_name("calibration_seeds.toml")
ROOT = Path(__file__).parents[1]
TEXT, CHATS = ROOT / "quant" / "calibration.txt", ROOT / "quant" / "calibration_chats.jsonl"
SEED = 20261123
SAMPLE_TOKENS = 192
QUESTIONS_A_TOPIC = 3
ADDRESSES, CHAPTERS, COUNTRIES, MODULES = 60, 40, 50, 40
MODULE_SIZE = 2000
END = "<|im_end|>"


def model_file(work: Path) -> Path:
    """The default as an int8 GGUF, converted once."""
    bundle = work / "bundle"
    if not bundle.exists():
        edge = str(Path(sys.executable).with_name("edge"))
        options = ["--target", "android", "--precision", "int8", "--no-proof", "-o", str(bundle)]
        subprocess.run([edge, "convert", MODEL, *options], check=True)
    return next(bundle.rglob("*.gguf"))


def questions(seeds: dict[str, Any]) -> list[str]:
    """Each topic with QUESTIONS_A_TOPIC of the instructions, and the requests."""
    instructions = seeds["instructions"]
    asked = [
        instructions[(QUESTIONS_A_TOPIC * i + k) % len(instructions)].format(topic=topic)
        for i, topic in enumerate(seeds["topics"])
        for k in range(QUESTIONS_A_TOPIC)
    ]
    return [*asked, *seeds["requests"]]


def prompt(question: str) -> str:
    """In the default's own template."""
    return f"<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n"


def ended(answer: str) -> str:
    """Without the marker of its end, or where it was cut off, up to its last whole sentence."""
    if answer.endswith(END):
        return answer.removesuffix(END).strip()
    return answer[: max(answer.rfind(mark) for mark in (". ", ".\n", "\n\n", "```")) + 1].strip() or answer


def modules(rng: random.Random) -> Iterator[str]:
    """Stretches of this project's own modules."""
    files = sorted(f for room in ("edge", "converters", "quant") for f in (ROOT / room).rglob("*.py"))
    for file in rng.sample([f for f in files if f.stat().st_size > MODULE_SIZE], MODULES):
        lines = file.read_text().splitlines(keepends=True)
        start = rng.randrange(len(lines) // 2)
        yield "".join(lines[start:])[:MODULE_SIZE].strip("\n")


def sums(rng: random.Random, sheets: int) -> Iterator[str]:
    """Sheets of arithmetic in many spellings, all of them right."""
    for _ in range(sheets):
        yield "\n".join(_sum(rng) for _ in range(12))


def _sum(rng: random.Random) -> str:
    a, b, c = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 12)
    big, small = max(a, b), min(a, b)
    hour, minutes = rng.randint(1, 9), rng.choice((10, 20, 30, 40))
    return rng.choice(
        (
            f"{a} + {b} = {a + b}",
            f"{big} - {small} = {big - small}",
            f"{a} * {c} = {a * c}",
            f"{a * c} / {c} = {a}",
            f"({a} + {b}) * {c} = {(a + b) * c}",
            f"{a} plus {b} makes {a + b}.",
            f"What is {a} times {c}? It is {a * c}.",
            f"Q: {a * c} divided by {c}?\nA: {a}",
            f"{100 * a} + {b} = {100 * a + b}",
            f"{c} squared is {c * c}, and {c} cubed is {c**3}.",
            f"Half of {2 * a} is {a}; a quarter of {4 * b} is {b}.",
            f"{10 * c} % of {10 * a} is {a * c}.",
            f"One crate holds {a} bottles, so {c} crates hold {c} * {a} = {a * c} bottles.",
            f"From {big} stamps she gives {small} away; {big} - {small} = {big - small} stay with her.",
            f"It is {hour}:{minutes}. In 15 minutes it will be {hour}:{minutes + 15}.",
            f"x + {a} = {a + b}, so x = {b}.",
            f"{c}x = {c * a}, so x = {a}.",
            f"{a} is {'even' if a % 2 == 0 else 'odd'}; the next number is {a + 1}.",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for the converted model and the packages")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    seeds = tomllib.loads(SEEDS.read_text())
    rng = random.Random(SEED)
    asked = questions(seeds)
    tokenizer = Tokenizer.from_file(str(resolve(MODEL).directory / "tokenizer.json"))
    prompts = [*map(prompt, asked), *seeds["openings"]]
    written = write(model_file(work), tokenizer, prompts, SAMPLE_TOKENS, seed=SEED, threads=options.threads)
    chats = [
        {"user": question, "assistant": ended(text.removeprefix(begun))}
        for question, begun, text in zip(asked, prompts, written, strict=False)
    ]
    samples = [
        *declarations(work, seeds["languages"]),
        *addresses(work, ADDRESSES, rng),
        *chapters(work, CHAPTERS, rng),
        *countries(work, COUNTRIES, rng),
        *modules(rng),
        *(snippet.strip("\n") for snippet in seeds["snippets"]),
        *sums(rng, 24),
        *(text.removesuffix(END).strip() for text in written[len(asked) :]),
    ]
    rng.shuffle(samples)
    TEXT.write_text("\n\n".join(samples) + "\n")
    CHATS.write_text("".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats))
    for file in (TEXT, CHATS):
        tokens = len(tokenizer.encode(file.read_text()).ids)
        print(f"{file.relative_to(ROOT)}: {tokens} tokens, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
