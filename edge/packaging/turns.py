"""A chat template as the texts that stand between the contents of the messages (apps/android/PROTOCOL.md, TURNS)."""

from __future__ import annotations

from typing import Any

from converters.errors import UnsupportedError
from edge.chat.templates import ChatTemplate

_S, _U, _A = "\ufdd2s\ufdd3", "\ufdd2u\ufdd3", "\ufdd2a\ufdd3"


def describe(template: str, *, bos_token: str, eos_token: str) -> dict[str, Any]:
    """TURNS. Raises UnsupportedError when the template's renderings are not made of such texts."""
    compiled = ChatTemplate(template, bos_token=bos_token, eos_token=eos_token)
    user, answer = {"role": "user", "content": _U}, {"role": "assistant", "content": _A}
    text = compiled.render([user, answer, user])
    start, middle, end = text.partition(_U)[0], text.partition(_U)[2].rpartition(_U)[0], text.rpartition(_U)[2]
    user_assistant, found, assistant_user = middle.partition(_A)
    if not found or compiled.render([user]) != start + _U + end:
        raise UnsupportedError(
            "the chat template is not made of texts between the messages",
            hint="convert the model with another template",
        )
    padded = compiled.render([{"role": "user", "content": f" {_U} "}])
    turns = {"trim": padded == start + _U + end, "start_user": start, "user_assistant": user_assistant,
             "assistant_user": assistant_user, "reply": end, "start_system": None, "system_user": None}  # fmt: skip
    system = compiled.render([{"role": "system", "content": _S}, user])
    if _S in system:
        turns["start_system"] = system.partition(_S)[0]
        turns["system_user"] = system.partition(_S)[2].rpartition(_U)[0]
    return turns
