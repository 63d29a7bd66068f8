"""A chat template as plain texts between messages, for where no Jinja runs: the app on a phone.

Nearly every template is a text before each kind of message. `describe` renders the template with marks as contents,
takes the texts between the marks, and believes them only when they give, for many conversations, what the template
renders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice

from converters.errors import UnsupportedError
from edge.chat.templates import ChatTemplate, Message

_MARK = "QMARK{}Q"
_CONTENTS = (
    "Hello", "What is 2 + 2?", "two\nlines\n\nand a third", " \n\t white space around \n ", "end\u00a0", "a", "0",
    "{{ messages }} {% raw %}", "\ufdd00\ufdd1 \ufdd01\ufdd1", "<think>\nso\n</think>\n\nyes",
    "emoji \U0001f44d\U0001f3fd, e\u0301, \u4f60\u597d",
    "x" * 300, "`code`\n```python\nprint('\"')\n```", "[INST] [/INST] <<SYS>>", "system", "none", "None", "false",
)  # fmt: skip
"""What a template might treat in its own way: white space, marks of `edge.chat.prompt`, a thinking block, words."""
_LONGEST = 6
"""Questions in the longest conversation that is compared."""


def describe(template: str, *, bos_token: str, eos_token: str) -> dict[str, str | bool | None]:
    """TURNS of apps/android/PROTOCOL.md; `start_system` and `system_user` None without system messages.

    Raises UnsupportedError for a template that refuses a plain conversation, or is not such texts.
    """
    compiled = ChatTemplate(template, bos_token=bos_token, eos_token=eos_token)
    found = _between(compiled, ["user", "assistant", "user"])
    if found is None:
        raise _refused("it changes or moves what is said")
    turns: dict[str, str | bool | None] = dict(
        zip(("start_user", "user_assistant", "assistant_user", "reply"), found, strict=True)
    )
    turns |= {"trim": False, "start_system": None, "system_user": None}
    spaced = _conversation(["user"], [" \n a \n "])
    turns["trim"] = compiled.render(spaced) != join(turns, spaced)
    if wrong := _difference(compiled, turns, system=False):
        raise _refused(f"{wrong} is not rendered as texts between messages")
    with_system = _with_system(compiled, turns)
    return turns | with_system


def join(turns: Mapping[str, str | bool | None], messages: Sequence[Message]) -> str:
    """What the app makes of a conversation: [system], user, assistant, .., user."""
    parts: list[str] = []
    before = "start"
    for message in messages:
        role = str(message["role"])
        text = turns[f"{before}_{role}"]
        if not isinstance(text, str):
            raise ValueError(f"no text for {role} after {before}")
        content = str(message["content"])
        parts += [text, content.strip() if turns["trim"] else content]
        before = role
    return "".join(parts) + str(turns["reply"])


def _with_system(template: ChatTemplate, turns: dict[str, str | bool | None]) -> dict[str, str | bool | None]:
    """The texts around a system message; {} where the template takes none, or treats it in a way of its own."""
    try:
        found = _between(template, ["system", "user"])
        if found is None or found[2] != turns["reply"]:
            return {}
        texts: dict[str, str | bool | None] = {"start_system": found[0], "system_user": found[1]}
        return {} if _difference(template, turns | texts, system=True) else texts
    except UnsupportedError:
        return {}


def _between(template: ChatTemplate, roles: Sequence[str]) -> list[str] | None:
    """The texts before, between and after the contents of a conversation; None where a content is not there once."""
    marks = [_MARK.format(i) for i in range(len(roles))]
    text = template.render(_conversation(roles, marks))
    found = re.findall(_MARK.format("[0-9]"), text)
    return re.split(_MARK.format("[0-9]"), text) if found == marks else None


def _difference(
    template: ChatTemplate, turns: Mapping[str, str | bool | None], *, system: bool
) -> str | None:
    """A conversation that the texts do not give, in a few words; None when they give all."""
    for messages in _conversations(system=system):
        if template.render(messages) != join(turns, messages):
            return f"a conversation that ends in {messages[-1]['content'][:20]!r}"
    return None


def _conversations(*, system: bool) -> Iterator[list[Message]]:
    """Each content in each place of conversations of every length."""
    for questions in range(1, _LONGEST + 1):
        roles = ["system"] * system + ["user", "assistant"] * (questions - 1) + ["user"]
        for start in range(len(_CONTENTS)):
            yield _conversation(roles, list(islice(cycle(_CONTENTS), start, start + len(roles))))


def _conversation(roles: Sequence[str], contents: Sequence[str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def _refused(why: str) -> UnsupportedError:
    return UnsupportedError(
        f"the app cannot use this chat template: {why}", hint="the other targets can: `edge chat BUNDLE`"
    )
