"""A reader of Xcode's project.pbxproj: an OpenStep property list, which plistlib does not read."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"\s+|//[^\n]*|/\*.*?\*/|(?P<mark>[{}()=;,])|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<word>[\w./$:-]+)",
    re.DOTALL,
)


def parse(text: str) -> Any:
    """Dicts, lists and strings. ValueError with the offset where it is no property list."""
    tokens = list(_tokens(text))
    value, rest = _value(tokens, 0)
    if rest != len(tokens):
        raise ValueError(f"more after the end: {tokens[rest]}")
    return value


def _tokens(text: str) -> Any:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"offset {at}: {text[at : at + 20]!r}")
        at = match.end()
        if match["mark"]:
            yield "mark", match["mark"]
        elif match["quoted"] is not None or match["word"]:
            yield "text", match["word"] or match["quoted"].replace('\\"', '"')


def _value(tokens: list[tuple[str, str]], at: int) -> tuple[Any, int]:
    kind, text = tokens[at]
    if kind == "text":
        return text, at + 1
    if text == "(":
        items: list[Any] = []
        at += 1
        while tokens[at] != ("mark", ")"):
            item, at = _value(tokens, at)
            items.append(item)
            if tokens[at] == ("mark", ","):
                at += 1
            elif tokens[at] != ("mark", ")"):
                raise ValueError(f"no comma before {tokens[at]}")
        return items, at + 1
    if text != "{":
        raise ValueError(f"{text!r} begins nothing")
    found: dict[str, Any] = {}
    at += 1
    while tokens[at] != ("mark", "}"):
        key, equals = tokens[at], tokens[at + 1]
        if key[0] != "text" or equals != ("mark", "=") or key[1] in found:
            raise ValueError(f"no key: {key} {equals}")
        found[key[1]], at = _value(tokens, at + 2)
        if tokens[at] != ("mark", ";"):
            raise ValueError(f"no semicolon after {key[1]}")
        at += 1
    return found, at + 1
