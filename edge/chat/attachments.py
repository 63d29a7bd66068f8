"""Images and recordings of a conversation: named in its messages, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.chat.templates import Message
from edge.runtimes.protocol import Medium, Perceiving, Runtime

KINDS = ("image", "audio")


def attachment(kind: str, path: Path) -> dict[str, str]:
    """As a message's "media" lists it, and as a saved conversation holds it."""
    return {"kind": kind, "path": str(path.expanduser().absolute())}


def is_attachment(data: Any) -> bool:
    """Whether `data` is one, of a conversation from a file."""
    return (
        isinstance(data, Mapping)
        and set(data) == {"kind", "path"}
        and data["kind"] in KINDS
        and isinstance(data["path"], str)
    )


class Gallery:
    """What a runtime makes of the files in messages; a file is read again only when it has changed."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._read: dict[tuple[object, ...], Medium] = {}

    def of(self, message: Message) -> list[Medium]:
        """The message's, in order. MediaError for a file that is damaged or gone, UnsupportedError where the model
        takes none of that kind."""
        return [self._medium(each["kind"], Path(each["path"])) for each in message.get("media", ())]

    def show(self, messages: Iterable[Message]) -> None:
        """Let the runtime know what stands in the messages that it is about to read; what does not is let go of, for a
        large image takes 90 MB."""
        if isinstance(self._runtime, Perceiving):
            shown = [medium for message in messages for medium in self.of(message)]
            self._runtime.show(shown)
            used = set(map(id, shown))
            self._read = {key: medium for key, medium in self._read.items() if id(medium) in used}

    def _medium(self, kind: str, path: Path) -> Medium:
        if not isinstance(self._runtime, Perceiving):
            raise UnsupportedError(
                f"this model takes no {kind} ({path})", hint="convert one that does, for --target cpu"
            )
        try:
            status = path.stat()
            key: tuple[object, ...] = (kind, path, status.st_mtime_ns, status.st_size)
        except OSError:
            key = (kind, path)  # what is wrong with it, its reader says
        if key not in self._read:
            self._read[key] = self._runtime.read(kind, path)
        return self._read[key]
