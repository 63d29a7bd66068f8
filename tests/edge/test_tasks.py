"""Task files: what is read, what counts as right, and that the shipped sets are what their script makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import eval_sets
from converters.errors import UnsupportedError
from edge import tasks
from edge.evaluation.answers import Answerer
from tests.edge.engines import Scripted

CHOICE = {"kind": "choice", "question": "Q?", "choices": ["x", "y", "z"], "answer": 2}
ANSWER = {"kind": "answer", "prompt": "Capital?", "answer": ["Paris", "Lutetia"]}
NUMBER = {"kind": "number", "prompt": "1 + 1 =", "answer": 1002}


def write(path: Path, *items: object) -> str:
    path.write_text("\n".join(json.dumps(i) if not isinstance(i, str) else i for i in items))
    return str(path)


def says(text: str) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda request: {"text": text}


def right(item: object, text: str, tmp_path: Path) -> bool:
    task = tasks.load(write(tmp_path / "t.jsonl", item))
    return tasks.run(task, says(text), lambda n: None).right[0]


@pytest.mark.parametrize("text", ["paris", "Paris.", "The Paris!", " «Paris»\nFrance has", "Lutetia"])
def test_an_answer_counts_apart_from_case_punctuation_and_articles(text: str, tmp_path: Path) -> None:
    assert right(ANSWER, text.replace("«", '"').replace("»", '"'), tmp_path)


@pytest.mark.parametrize("text", ["", "It is Paris", "Pari s", "France\nParis"])
def test_another_answer_does_not_count(text: str, tmp_path: Path) -> None:
    assert not right(ANSWER, text, tmp_path)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("1002", True),
        ("1 + 1 = 1,002.", True),
        ("1002.0", True),
        ("-1002", False),
        ("1002 is 7", False),
        ("", False),
    ],
)
def test_the_last_number_counts(text: str, counts: bool, tmp_path: Path) -> None:
    assert right(NUMBER, text, tmp_path) is counts


def test_the_likeliest_choice_is_given(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "t.jsonl", CHOICE, CHOICE | {"answer": 0}))
    asked: list[dict[str, Any]] = []

    def ask(request: dict[str, Any]) -> Mapping[str, Any]:
        asked.append(request)
        return {"scores": [-3.0, -2.0, -1.0]}

    outcome = tasks.run(task, ask, lambda n: None)
    assert outcome.given == ("z", "z")
    assert outcome.right == (True, False)
    assert outcome.accuracy.value == 0.5
    assert asked[0] == {"prompt": "Q?", "choices": ["x", "y", "z"]}


def test_agreement_is_of_what_is_said_right_or_wrong(tmp_path: Path) -> None:
    task = tasks.load(write(tmp_path / "t.jsonl", ANSWER, NUMBER))
    first = tasks.run(task, says("Rome, 5"), lambda n: None)
    same = tasks.run(task, says("rome 5"), lambda n: None)
    other = tasks.run(task, says("Rome 6"), lambda n: None)
    assert first.agreement(same).value == 1.0
    assert first.agreement(other).value == 0.0
    assert first.accuracy.value == 0.0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON: Expecting property name enclosed in double quotes (column 2)"),
        ("[" * 100_000, "nests too deeply"),
        ("[1]", "line 2: no object"),
        ({"kind": "song"}, "choice, answer, number"),
        (ANSWER | {"why": 1}, "'why' is not a key of kind 'answer'"),
        ({"kind": "answer", "prompt": "x"}, "'answer' is missing in kind 'answer'"),
        (ANSWER | {"prompt": " "}, "'prompt' is no text"),
        (ANSWER | {"answer": 3}, "'answer' is no list of texts"),
        (ANSWER | {"answer": []}, "'answer' is no list of texts"),
        (CHOICE | {"answer": 3}, "'answer' is 3, no index into 3 choices"),
        (CHOICE | {"answer": True}, "'answer' is True"),
        (CHOICE | {"choices": "xyz"}, "'choices' is no list of texts"),
        (NUMBER | {"plain": 1}, "'plain' is 1"),
        (CHOICE | {"plain": True}, "'plain' is not a key of kind 'choice'"),
        (NUMBER | {"answer": "2"}, "'answer' is '2', no number"),
    ],
)
def test_a_broken_line_is_named(line: object, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="line 2") as error:
        tasks.load(write(tmp_path / "t.jsonl", ANSWER, line))
    assert told in error.value.cause


def test_an_answer_ends_at_a_stop_token_or_a_plain_first_line() -> None:
    chat = Scripted([b" Par", b"is", b"\n", b"!"])
    assert Answerer(chat).answer({"prompt": "?"}) == {"text": "Paris\n!"}
    plain = Scripted([b" Par", b"is", b"\n", b"!"], template=None)
    assert Answerer(plain).answer({"prompt": "?"}) == {"text": "Paris"}
    assert Answerer(chat).answer({"prompt": "?", "plain": True}) == {"text": "Paris"}
    assert chat.prompt.startswith("?")
    again = Answerer(chat)
    again.answer({"prompt": "a long common beginning, 1"})
    before = len(chat.appended)
    again.answer({"prompt": "a long common beginning, 2"})
    assert bytes(chat.appended[before]).decode().startswith("2"), "what two prompts share runs once"


@pytest.mark.parametrize("name", tasks.shipped())
def test_shipped_sets_can_be_read(name: str) -> None:
    task = tasks.load(name)
    assert 100 <= len(task.items) <= 200
    assert len({(i.prompt, i.choices) for i in task.items}) == len(task.items), "an item comes twice"


@pytest.mark.parametrize("name", ["arithmetic", "reading"])
def test_shipped_sets_are_what_their_script_makes(name: str) -> None:
    """knowledge comes from packages that the tests do not need."""
    made = eval_sets.text(eval_sets.MAKERS[name]())
    assert made == (tasks.SETS / f"{name}.jsonl").read_text(encoding="utf-8")


def test_the_last_answer_of_arithmetic_is_the_sum() -> None:
    for item in tasks.load("arithmetic").items:
        lines = [*item.prompt.split("\n")[:-1], f"{item.prompt} {item.accepted[0]}".split("\n")[-1]]
        for line in lines:
            term, _, result = line.partition(" = ")
            assert eval(term) == int(result), line
