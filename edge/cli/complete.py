"""What the shell completes: names of targets and of locked models. A broken file completes nothing."""

from __future__ import annotations

from converters.errors import EdgeError
from edge import lock
from edge.targets import load_targets


def targets(incomplete: str) -> list[tuple[str, str]]:
    """(name, title) of every target that begins so."""
    try:
        return [(n, t.title) for n, t in sorted(load_targets().items()) if n.startswith(incomplete)]
    except EdgeError:
        return []


def models(incomplete: str) -> list[tuple[str, str]]:
    """(name, source) of every locked model that begins so."""
    try:
        known = lock.read(lock.find() or lock.packaged())
    except EdgeError:
        return []
    return [(n, m.source) for n, m in sorted(known.items()) if n.startswith(incomplete)]
