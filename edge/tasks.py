"""Task files: questions with known answers, one JSON object a line.

    {"kind": "choice", "question": "...", "choices": ["...", "..."], "answer": 0}
    {"kind": "answer", "prompt": "...", "answer": "..."}        or a list of accepted answers
    {"kind": "number", "prompt": "...", "answer": 42}

An answer's or number's prompt is a chat message where the model has a template. With "plain": true it is a text that
the model goes on writing, to the end of the line: right for prompts that are worked examples.

A choice is the one whose tokens are likeliest on average (nats a token). An answer is generated greedily and counts
when its first line is an accepted one, apart from case, punctuation and articles (the rule of SQuAD's evaluation,
arXiv 1606.05250); a number counts when it is the last one in the answer.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import UnsupportedError
from edge.evaluation.statistics import Estimate, share
from edge.evaluation.windows import read_text

SETS = Path(__file__).with_name("eval_sets")
_FIELDS = {"choice": ("question", "choices"), "answer": ("prompt",), "number": ("prompt",)}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Ask = Callable[[dict[str, Any]], Mapping[str, Any]]
"""`edge.evaluation.engine.Engine.item`, or the like."""


@dataclass(frozen=True)
class Item:
    """`accepted`: the answers that count, as text; of a choice the right one. `choices` is empty but for a choice."""

    kind: str
    prompt: str
    choices: tuple[str, ...]
    accepted: tuple[str, ...]
    plain: bool = False


@dataclass(frozen=True)
class Task:
    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Outcome:
    """What a model said to each item of a task, `given`, and whether that was right."""

    task: Task
    given: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def accuracy(self) -> Estimate:
        return share(np.array(self.right))

    def agreement(self, other: Outcome) -> Estimate:
        """How often two models said the same, right or wrong."""
        pairs = zip(self.task.items, self.given, other.given, strict=True)
        return share(np.array([_same(item, mine, theirs) for item, mine, theirs in pairs]))


def shipped() -> list[str]:
    """Names of the sets that come with edge."""
    return sorted(file.stem for file in SETS.glob("*.jsonl"))


def load(name_or_path: str) -> Task:
    """A shipped set by its name, or a file. Raises UnsupportedError, which names the line, for a broken one."""
    if name_or_path in shipped():
        return _read(SETS / f"{name_or_path}.jsonl", name_or_path)
    file = Path(name_or_path)
    if not file.is_file():
        raise UnsupportedError(
            f"'{name_or_path}' is no task file and no set of edge",
            hint=f"shipped sets: {', '.join(shipped())}",
        )
    return _read(file, file.stem)


def run(task: Task, ask: Ask, advance: Callable[[int], None]) -> Outcome:
    """Put every item to a model. `advance` is told 1 after each."""
    given, right = [], []
    for item in task.items:
        request: dict[str, Any] = {"prompt": item.prompt}
        if item.kind == "choice":
            scores = ask(request | {"choices": list(item.choices)})["scores"]
            given.append(item.choices[int(np.argmax(scores))])
        else:
            given.append(str(ask(request | {"plain": item.plain})["text"]))
        right.append(any(_same(item, given[-1], answer) for answer in item.accepted))
        advance(1)
    return Outcome(task, tuple(given), tuple(right))


def _same(item: Item, one: str, other: str) -> bool:
    if item.kind == "choice":
        return one == other
    if item.kind == "number":
        numbers = _last_number(one), _last_number(other)
        if numbers != (None, None):
            return numbers[0] == numbers[1]
    return _normal(one) == _normal(other)


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _normal(text: str) -> str:
    """The first line without case, punctuation, articles and surplus white space."""
    line = next(iter(text.strip().splitlines()), "")
    line = unicodedata.normalize("NFKC", line).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", line).split())


def _read(file: Path, name: str) -> Task:
    items = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            try:
                items.append(_item(line))
            except ValueError as error:
                raise UnsupportedError(
                    f"{file}: line {number}: {error}",
                    hint="the top of edge/tasks.py tells the format",
                ) from None
    if not items:
        raise UnsupportedError(f"{file} holds no item", hint=f"shipped sets: {', '.join(shipped())}")
    return Task(name, tuple(items))


def _item(line: str) -> Item:
    """Raises ValueError with what is wrong."""
    try:
        data = json.loads(line)
    except RecursionError:
        raise ValueError("no JSON that can be read: it nests too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(data, dict) or data.get("kind") not in _FIELDS:
        raise ValueError(f'no object with "kind" one of {", ".join(_FIELDS)}')
    kind, answer = str(data["kind"]), data.get("answer")
    plain = data.pop("plain", False) if kind != "choice" else False
    if not isinstance(plain, bool):
        raise ValueError(f"'plain' is {plain!r}, neither true nor false")
    keys = {"kind", "answer", *_FIELDS[kind]}
    if set(data) != keys:
        odd = sorted(set(data) ^ keys)
        raise ValueError(f"'{odd[0]}' is {'not a key of' if odd[0] in data else 'missing in'} kind '{kind}'")
    prompt = data[_FIELDS[kind][0]]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"'{_FIELDS[kind][0]}' is no text")
    if kind == "choice":
        choices = _texts("choices", data["choices"])
        if type(answer) is not int or not 0 <= answer < len(choices):
            raise ValueError(f"'answer' is {answer!r}, no index into {len(choices)} choices")
        return Item(kind, prompt, choices, (choices[answer],))
    if kind == "number":
        if not isinstance(answer, int | float) or isinstance(answer, bool):
            raise ValueError(f"'answer' is {answer!r}, no number")
        return Item(kind, prompt, (), (str(answer),), plain)
    return Item(kind, prompt, (), _texts("answer", [answer] if isinstance(answer, str) else answer), plain)


def _texts(key: str, values: object) -> tuple[str, ...]:
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(v, str) and v.strip() for v in values)
    ):
        raise ValueError(f"'{key}' is no list of texts")
    return tuple(values)
