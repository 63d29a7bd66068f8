"""Which adapter of an artifact is meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.errors import UnsupportedError


def get_adapter(adapters: Mapping[str, Path], name: str, artifact: Path) -> Path:
    """UnsupportedError, with the names that there are, when none is called `name`."""
    if name not in adapters:
        known = (
            f"it has: {', '.join(adapters)}" if adapters else "edge convert --adapter DIR makes it with one"
        )
        raise UnsupportedError(f"{artifact.name} has no adapter '{name}'", hint=known)
    return adapters[name]
