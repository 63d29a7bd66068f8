"""What a draft model learns from: its teacher's own answers, since those are what it will have to guess."""

from __future__ import annotations

import json
import random
import tomllib
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.calibration_text import CHATS, END, SEEDS, prompt
from benchmarks.generate import write

TOKENS = 192
SEED = 20261124


def questions() -> list[str]:
    """All instructions of calibration_seeds.toml about all topics, and its requests; chat_answers.jsonl has others."""
    seeds = tomllib.loads(SEEDS.read_text())
    asked = [text.format(topic=topic) for topic in seeds["topics"] for text in seeds["instructions"]]
    return [*asked, *seeds["requests"]]


def shipped() -> list[str]:
    """The embedded default's chats that calibration ships with, in an order that the seed decides."""
    chats = [json.loads(line) for line in CHATS.read_text().splitlines()]
    random.Random(SEED).shuffle(chats)
    return [f"{prompt(chat['user'])}{chat['assistant']}{END}" for chat in chats]


def write_answers(gguf: Path, tokenizer: Path, samples: int, file: Path, *, threads: int) -> int:
    """The chats that ship, and `samples` more answers of the GGUF to each question, at temperature 1; returns the
    text's tokens. A file that is there is taken."""
    encoder = Tokenizer.from_file(str(tokenizer))
    if not file.exists():
        prompts = [prompt(question) for question in questions()]
        chats = shipped()
        for sample in range(samples):
            chats += write(gguf, encoder, prompts, TOKENS, seed=SEED + sample, threads=threads)
        file.write_text("\n\n".join(chats))
    return len(encoder.encode(file.read_text()).ids)
