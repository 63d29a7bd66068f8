"""The messages of a chat request, as the chat template takes them.

Functions are told to the model and called in words that work with every template: the definitions stand in the system
message, a call is the JSON object {"name", "arguments"}, and a result comes back as a message of the user.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.serving.errors import ApiError
from edge.serving.fields import Fields

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}


@dataclass(frozen=True)
class Upload:
    """An image or a recording that came with a message. kind: "image" or "audio"."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Said:
    """One message; `uploads` stand before its text, wherever they stood among its parts."""

    role: str
    text: str
    uploads: tuple[Upload, ...] = ()


def read_messages(items: Sequence[Any]) -> list[Said]:
    """Raises ApiError for what is no message, and for an address where data is needed: nothing is fetched."""
    if not items:
        raise ApiError(400, "messages is empty", param="messages")
    called: dict[str, str] = {}
    said = []
    for i, item in enumerate(items):
        where = f"messages[{i}]"
        fields = Fields(item, where)
        role = fields.needed("role")
        if role not in _ROLES:
            raise fields.wrong("role", f"is '{role}', not one of {', '.join(_ROLES)}")
        text, uploads = _content(fields.take("content"), f"{where}.content")
        calls = [
            _call(call, f"{where}.tool_calls[{n}]", called)
            for n, call in enumerate(fields.items("tool_calls"))
        ]
        if role == "tool":
            text = f"{called.get(fields.needed('tool_call_id'), 'The function')} returned: {text}"
        fields.finish(["name", "refusal", "audio", "annotations"])
        said.append(Said(_ROLES[role], "\n".join([text] * bool(text) + calls), uploads))
    return said


def with_system(said: Sequence[Said], text: str) -> list[Said]:
    """The messages with `text` at the end of their system message."""
    if said[0].role != "system":
        return [Said("system", text), *said]
    return [Said("system", f"{said[0].text}\n\n{text}"), *said[1:]]


def _call(data: Any, where: str, called: dict[str, str]) -> str:
    call = Fields(data, where)
    function = Fields(call.take("function"), f"{where}.function")
    name = function.needed("name")
    try:
        arguments = json.loads(function.text("arguments") or "{}")
    except (ValueError, RecursionError):
        raise function.wrong("arguments", "is no JSON") from None
    called[call.needed("id")] = name
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def _content(content: Any, where: str) -> tuple[str, tuple[Upload, ...]]:
    if content is None or isinstance(content, str):
        return content or "", ()
    if not isinstance(content, list):
        raise ApiError(400, f"{where} is neither a text nor a list of parts", param=where)
    texts: list[str] = []
    uploads: list[Upload] = []
    for i, data in enumerate(content):
        part = Fields(data, f"{where}[{i}]")
        kind = part.needed("type")
        if kind == "text":
            texts.append(part.needed("text"))
        elif kind == "image_url":
            uploads.append(_image(Fields(part.take("image_url"), f"{where}[{i}].image_url")))
        elif kind == "input_audio":
            audio = Fields(part.take("input_audio"), f"{where}[{i}].input_audio")
            uploads.append(Upload("audio", _bytes(audio, "data", audio.needed("data"))))
        else:
            raise part.wrong("type", f"is '{kind}'; this server takes text, image_url and input_audio")
    return "\n".join(texts), tuple(uploads)


def _image(fields: Fields) -> Upload:
    url = fields.needed("url")
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise fields.wrong("url", "is no data:image/...;base64, address; this server fetches none")
    return Upload("image", _bytes(fields, "url", data))


def _bytes(fields: Fields, name: str, data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise fields.wrong(name, "is no base64") from None
