"""The closed set of errors that a person can meet, from any room of the project.

Every one of them carries one line of cause and one line that says what to try, and maps to an exit code of
the command line (README, "Exit codes"). Anything else that escapes is a bug and exits with 2.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeError(Exception):
    """Something the person can fix. `cause` and `hint` are one line each, readable without colour."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, *, hint: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


class CheckpointError(EdgeError):
    """A checkpoint (or GGUF) that is damaged, incomplete or hostile; names the file or tensor."""


class UnsupportedError(EdgeError):
    """Something well-formed that cannot be converted or run rightly; names the key, op or tensor."""


class MediaError(EdgeError):
    """An image or a recording that is missing, damaged, too large or of an unknown kind; names the file."""


class BundleError(EdgeError):
    """A bundle that is missing, incomplete or altered; names the file."""


class SourceError(EdgeError):
    """A model that cannot be fetched, or whose bytes are not the pinned ones; names the file."""


class PackageError(EdgeError):
    """An app that cannot be built, or that breaks a rule of its platform; names the tool or the file."""


class DeviceError(EdgeError):
    """A phone that is not there, is full, or was lost on the way; names it."""


class TrainingError(EdgeError):
    """A training that diverged: a loss, a gradient or a weight is no finite number; names the step."""


class MachineError(EdgeError):
    """The machine, not the person: disk full, memory, an engine that crashed."""

    exit_code = 2


class ProofError(EdgeError):
    """The artifact does not speak like the checkpoint. Nothing was published."""

    exit_code = 3


class AccessError(EdgeError):
    """The source refused access: a gated model, a missing or wrong token."""

    exit_code = 4
