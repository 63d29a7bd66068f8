"""What an extra of pyproject.toml brings, asked for before any work is done."""

from __future__ import annotations

from importlib.util import find_spec

from converters.errors import UnsupportedError

TRAINING = ("torch", "transformers")
"""What training takes at least, of the extra `shrink`."""


def require(what: str, extra: str, *modules: str) -> None:
    """Raises UnsupportedError that names those of `modules` that are not installed, and the extra that has them."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"{what} needs {' and '.join(missing)}, not installed here", hint=f"pip install 'edge[{extra}]'"
        )
