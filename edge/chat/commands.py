"""The `/commands` of the chat: each takes the session and the text after its name, and gives what to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.chat.answer import Answer
from edge.chat.attachments import is_attachment
from edge.chat.sampling import Sampling
from edge.chat.session import Session, Settings
from edge.chat.templates import Message
from edge.runtimes.protocol import Adaptable

NO_ADAPTER = "none"
_MAX_SAVED = 64 << 20
_SAMPLING = {f.name: f.type for f in fields(Sampling)}
_WHOLE = {"seed", "max_tokens", *(name for name, kind in _SAMPLING.items() if kind == "int")}
SETTINGS = (*_SAMPLING, "seed", "max_tokens", "stop")


def run(session: Session, line: str) -> str | None:
    """Run the command in `line` (which starts with a slash); what to say, or None to leave the chat.

    Raises UnsupportedError for a wrong command or value.
    """
    name, _, rest = line[1:].partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise UnsupportedError(f"there is no command /{name}", hint="/help lists them")
    return command[0](session, rest.strip())


def changed(settings: Settings, name: str, text: str) -> Settings:
    """`settings` with one value parsed from text. Raises UnsupportedError for a wrong name or value."""
    if name not in SETTINGS:
        raise UnsupportedError(f"there is no setting '{name}'", hint=f"one of {', '.join(SETTINGS)}")
    if name == "stop":
        return replace(settings, stop=(*settings.stop, text) if text else ())
    try:
        value: Any = int(text) if name in _WHOLE else float(text)
    except ValueError:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise UnsupportedError(f"{name} is '{text}'", hint=f"{name} takes {kind}") from None
    if name in _SAMPLING:
        return replace(settings, sampling=replace(settings.sampling, **{name: value}))
    return replace(settings, **{name: value})


def _values(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings.sampling, name, getattr(settings, name, None)) for name in SETTINGS}


def _set(session: Session, rest: str) -> str:
    name, _, text = rest.partition(" ")
    if name:
        session.settings = changed(session.settings, name, text.strip())
        return f"{name} = {_values(session.settings)[name]}"
    return "\n".join(f"{key} = {value}" for key, value in _values(session.settings).items())


def _show(session: Session, rest: str) -> str:
    runtime = session.runtime
    return "\n".join(
        [
            f"engine: {runtime.name}",
            f"context: {runtime.position} of {runtime.context_length} tokens",
            f"template: {'none (plain completion)' if session.format.plain else 'from the model'}",
            f"system: {session.system or 'none set'}",
            f"messages: {len(session.messages)}",
            _set(session, ""),
        ]
    )


def _system(session: Session, rest: str) -> str:
    session.system = rest or None
    session.clear()
    return (
        "system message set, conversation cleared" if rest else "system message removed, conversation cleared"
    )


def _adapter(session: Session, rest: str) -> str:
    runtime = session.runtime
    if rest:
        session.use_adapter(None if rest == NO_ADAPTER else rest)
        return f"adapter: {rest}"
    used = runtime.adapter if isinstance(runtime, Adaptable) else None
    known = ", ".join(runtime.adapters) if isinstance(runtime, Adaptable) else ""
    return f"adapter: {used or NO_ADAPTER} (there are: {known or 'no others'})"


def _attach(kind: str) -> Callable[[Session, str], str]:
    def attach(session: Session, rest: str) -> str:
        tokens = session.attach(kind, _path(rest, f"/{kind}"))
        return f"{rest} goes with the next message, as {tokens} tokens"

    return attach


def _save(session: Session, rest: str) -> str:
    path = _path(rest, "/save")
    data = {"system": session.system, "messages": session.messages}
    try:
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnsupportedError(f"cannot write {path}: {error.strerror}", hint="/save another file") from None
    return f"{len(session.messages)} messages saved to {path}"


def _load(session: Session, rest: str) -> str:
    path = _path(rest, "/load")
    wrong = UnsupportedError(f"{path} is no saved conversation", hint="/save FILE makes one")
    try:
        if path.stat().st_size > _MAX_SAVED:
            raise wrong
        data = json.loads(path.read_text(encoding="utf-8"))
        system, found = data["system"], data["messages"]
        messages: list[Message] = [
            {"role": m["role"], "content": m["content"]} | ({"media": m["media"]} if m.get("media") else {})
            for m in found
        ]
    except OSError as error:
        raise UnsupportedError(f"cannot read {path}: {error.strerror}", hint="/load another file") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    roles = all(m["role"] in ("system", "user", "assistant") for m in messages)
    texts = all(
        isinstance(m["content"], str)
        and isinstance(m.get("media", []), list)
        and all(map(is_attachment, m.get("media", [])))
        for m in messages
    )
    if not roles or not texts or not isinstance(system, str | None):
        raise wrong
    session.system = system
    session.replace(messages)
    return f"{len(messages)} messages loaded from {path}"


def _path(text: str, command: str) -> Path:
    if not text:
        example = {"/image": "photo.jpg", "/audio": "voice.wav"}.get(command, "chat.json")
        raise UnsupportedError(f"{command} needs a file name", hint=f"{command} {example}")
    return Path(text).expanduser()


def _clear(session: Session, rest: str) -> str:
    session.clear()
    return "conversation cleared"


def _stats(session: Session, rest: str) -> str:
    return stats(session.last, session.runtime.context_length) if session.last else "no answer yet"


def stats(answer: Answer, context_length: int) -> str:
    """The numbers of one answer, for people."""
    read = answer.prompt_tokens - answer.cached_tokens
    lines = [
        f"first token: {answer.first_token_s:.3f} s",
        f"prompt: {answer.prompt_tokens} tokens, {answer.cached_tokens} of them cached; "
        f"{read} read at {answer.prompt_tokens_per_s:.1f} tok/s",
        f"answer: {answer.answer_tokens} tokens at {answer.answer_tokens_per_s:.1f} tok/s",
        f"context: {answer.context_used} of {context_length} tokens",
        f"stopped by: {answer.stop}, seed {answer.seed}",
    ]
    if counts := answer.speculation:
        lines.append(
            f"speculation: {counts.accepted} of {counts.drafted} guessed tokens were right "
            f"({counts.acceptance:.0%}), {counts.tokens_per_step:.2f} tokens a run of the model"
        )
    return "\n".join(lines)


def _help(session: Session, rest: str) -> str:
    width = max(len(usage) for _, usage, _ in COMMANDS.values())
    lines = [f"{usage.ljust(width)}  {about}" for _, usage, about in COMMANDS.values()]
    return "\n".join([*lines, f"{chr(34) * 3:{width}}  opens and closes a message of several lines"])


def _bye(session: Session, rest: str) -> None:
    return None


COMMANDS: dict[str, tuple[Callable[[Session, str], str | None], str, str]] = {
    "set": (_set, "/set [NAME VALUE]", f"change a setting: {', '.join(SETTINGS)}"),
    "show": (_show, "/show", "engine, context, system message, settings"),
    "system": (_system, "/system [TEXT]", "set the system message and start anew"),
    "adapter": (_adapter, "/adapter [NAME]", f"answer with an adapter of the bundle; {NO_ADAPTER}: without"),
    "image": (_attach("image"), "/image FILE", "show an image with the next message"),
    "audio": (_attach("audio"), "/audio FILE", "play a recording with the next message"),
    "save": (_save, "/save FILE", "write the conversation to a JSON file"),
    "load": (_load, "/load FILE", "go on with a saved conversation"),
    "clear": (_clear, "/clear", "forget the conversation"),
    "stats": (_stats, "/stats", "time and speed of the last answer"),
    "help": (_help, "/help", "this list"),
    "bye": (_bye, "/bye", "leave (Ctrl-D does too)"),
}
"""Name: (function, usage, what it does)."""
