"""How long work tells where it is. The work knows only this protocol; who shows it, and how, is the CLI's."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A sequence of stages. Calls may come from any thread; none of them may raise."""

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin a stage and end the one before. `total` in `unit`, None when unknown."""

    def advance(self, n: int) -> None:
        """`n` more units of the stage are done."""

    def note(self, text: str) -> None:
        """One line that the person should read whether or not anything is drawn."""

    def done(self) -> None:
        """End the last stage. May be called more than once."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def done(self) -> None:
        pass
