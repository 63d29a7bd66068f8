"""A bundle: its manifest, its proof's verdict, and what is inside each variant. Nothing is hashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.errors import EdgeError
from edge.bundle import load


def inspect(directory: Path, inspect_variant: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """`inspect_variant` looks into each; one that is damaged is told, and the others still shown."""
    bundle = load(directory)
    manifest = bundle.manifest
    total = sum(entry["size"] for entry in manifest["files"].values())
    variants = []
    for variant in bundle.variants:
        try:
            content = inspect_variant(variant.path)
        except EdgeError as error:
            content = {"error": error.cause, "hint": error.hint}
        variants.append(
            {
                "name": variant.name,
                "path": variant.path.relative_to(directory).as_posix(),
                "targets": list(variant.targets),
                "context_length": variant.context_length,
                "approximate": variant.approximate,
                "content": content,
            }
        )
    return {
        "kind": "bundle",
        "path": str(directory),
        "name": bundle.name,
        "source": manifest.get("source"),
        "model": manifest.get("model"),
        "tools": manifest.get("tools"),
        "proof": manifest.get("proof"),
        "adapters": list(bundle.adapters) or None,
        "files": manifest["files"],
        "bytes": total,
        "variants": variants,
    }
