"""A GGUF file: metadata with long arrays shortened, tensors by type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from converters.gguf.reader import Gguf

_SHOWN_ITEMS = 8
_SHOWN_CHARACTERS = 400


def inspect(path: Path) -> dict[str, Any]:
    """Facts of the header; the limits on it are those of `converters.gguf.reader`."""
    with Gguf.open(path) as file:
        types: dict[str, dict[str, int]] = {}
        parameters = 0
        for tensor in file.tensors.values():
            entry = types.setdefault(tensor.type.name, {"tensors": 0, "bytes": 0})
            entry["tensors"] += 1
            entry["bytes"] += tensor.nbytes
            count = 1
            for n in tensor.shape:
                count *= n
            parameters += count
        return {
            "kind": "gguf",
            "path": str(path),
            "version": file.version,
            "architecture": file.metadata.get("general.architecture"),
            "parameters": parameters,
            "bytes": path.stat().st_size,
            "types": dict(sorted(types.items())),
            "metadata": {key: _shortened(value) for key, value in file.metadata.items()},
            "tensors": [
                {"name": t.name, "type": t.type.name, "shape": list(t.shape), "bytes": t.nbytes}
                for t in file.tensors.values()
            ],
        }


def _shortened(value: Any) -> Any:
    if isinstance(value, list) and len(value) > _SHOWN_ITEMS:
        return {"length": len(value), "first": [_shortened(v) for v in value[:_SHOWN_ITEMS]]}
    if isinstance(value, list):
        return [_shortened(v) for v in value]
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]}... ({len(value)} characters)"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    return value
