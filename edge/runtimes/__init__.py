"""Engines: `open_runtime` picks the one that runs a path. Chat and proof know only the protocol.

An engine from outside is an entry point of group `edge.runtimes` that loads to a module (or any object) with
`accepts(path) -> bool` and `load(path, *, context_length, settings, exact) -> Runtime`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from converters.errors import UnsupportedError
from edge.engine_settings import EngineSettings
from edge.runtimes.protocol import DEFAULT_CONTEXT, Dialect, Perceiving, Runtime

__all__ = [
    "DEFAULT_CONTEXT",
    "Dialect",
    "Engine",
    "EngineSettings",
    "Perceiving",
    "Runtime",
    "accepts",
    "open_runtime",
]

_BUILT_IN = tuple(f"edge.runtimes.{name}" for name in ("multimodal", "qnn", "dml", "genai", "llamacpp"))


class Engine(Protocol):
    """What an engine module offers; both are cheap to import, the engine itself loads in `load`."""

    def accepts(self, path: Path) -> bool:
        """Whether `path` looks like an artifact of this engine. Reads at most a few bytes."""

    def load(
        self, path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool
    ) -> Runtime: ...


def _engines() -> Iterator[Engine]:
    for name in _BUILT_IN:
        yield cast(Engine, import_module(name))
    for entry in entry_points(group="edge.runtimes"):
        yield cast(Engine, entry.load())


def accepts(path: Path) -> bool:
    """Whether some engine knows this kind of artifact (installed or not)."""
    return any(engine.accepts(path) for engine in _engines())


def open_runtime(
    path: Path,
    *,
    context_length: int | None = None,
    threads: int | None = None,
    settings: EngineSettings | None = None,
    exact: bool = False,
) -> Runtime:
    """Load a variant: a folder with genai_config.json, or a .gguf file.

    context_length: None takes the artifact's own, at most DEFAULT_CONTEXT. threads: goes before the one of
    `settings`. exact: a float32 KV cache without flash attention, whatever `settings` say, for proofs.
    Raises UnsupportedError (no engine for it, or the engine refuses the file or a setting).
    """
    settings = settings or EngineSettings()
    if threads is not None:
        settings = replace(settings, threads=threads)
    for engine in _engines():
        if engine.accepts(path):
            return engine.load(path, context_length=context_length, settings=settings, exact=exact)
    if not path.exists():
        raise UnsupportedError(f"{path} does not exist", hint="edge chat --help")
    raise UnsupportedError(
        f"{path}: no engine runs this (neither a folder with genai_config.json nor a .gguf file)",
        hint=f"edge inspect {path}",
    )
