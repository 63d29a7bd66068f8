"""The fields of a JSON body, each looked at once; one that nobody has looked at is an error, not a wish ignored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edge.serving.errors import ApiError


class Fields:
    """An object of the body; null is as good as absent. `where` comes before the name of a field in errors."""

    def __init__(self, data: Any, where: str = "") -> None:
        if not isinstance(data, dict):
            raise ApiError(400, f"{where or 'the body'} is no JSON object", param=where or None)
        self._where = f"{where}." if where else ""
        self._left = {str(name): value for name, value in data.items() if value is not None}

    def take(self, name: str) -> Any:
        """None when it is absent."""
        return self._left.pop(name, None)

    def wrong(self, name: str, what: str) -> ApiError:
        return ApiError(400, f"{self._where}{name} {what}", param=f"{self._where}{name}")

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "is no text")
        return value

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return bool(value)

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(name, f"is no number from {low:g} to {high:g}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"is no whole number from {low} to {high}")
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text, or a list of at most `most`."""
        value = self.take(name)
        found = [value] if isinstance(value, str) else value or []
        if not isinstance(found, list) or len(found) > most or not all(isinstance(t, str) for t in found):
            raise self.wrong(name, f"is neither a text nor a list of up to {most}")
        return tuple(found)

    def items(self, name: str) -> list[Any]:
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "is no list")
        return value or []

    def only(self, name: str, *values: Any) -> None:
        """A field that may be given with a value that changes nothing."""
        value = self.take(name)
        if value is not None and value not in values:
            allowed = " or ".join(repr(v) for v in values)
            raise ApiError(
                400, f"{self._where}{name} is not supported here (only {allowed})", param=self._where + name
            )

    def finish(self, ignored: Iterable[str] = ()) -> None:
        """`ignored` fields change no answer."""
        for name in ignored:
            self.take(name)
        if self._left:
            name = min(self._left)
            raise self.wrong(name, "is not known to this server")
