"""Text that a stranger wrote, made safe to look at: what cannot be seen is shown, and turns nothing around."""

from __future__ import annotations

_SIGNS = {"\n": "↵", "\t": "⇥"}


def visible(text: str) -> str:
    """Line ends and tabs as signs; control and direction characters, and what no text may hold, as escapes."""
    return "".join(c if c.isprintable() else _sign(c) for c in text)


def flowing(text: str) -> str:
    """As `visible`, but lines end where they ended."""
    return "\n".join(map(visible, text.split("\n")))


def _sign(character: str) -> str:
    return _SIGNS.get(character) or character.encode("unicode_escape").decode("ascii")
