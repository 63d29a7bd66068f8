"""Where the adapters of an artifact lie: in a folder within it, or beside it where it is one file."""

from __future__ import annotations

from pathlib import Path

_IN_FOLDER, _BESIDE = ".onnx_adapter", ".gguf"


def adapter_file(artifact: Path, name: str) -> Path:
    """Of the adapter called `name`: FOLDER/adapters/NAME.onnx_adapter, or MODEL.adapters/NAME.gguf."""
    return _folder(artifact) / f"{name}{_suffix(artifact)}"


def find_adapters(artifact: Path) -> dict[str, Path]:
    """Those that are there, by name, sorted."""
    suffix = _suffix(artifact)
    return {file.name.removesuffix(suffix): file for file in sorted(_folder(artifact).glob(f"*{suffix}"))}


def _folder(artifact: Path) -> Path:
    return artifact.with_suffix(".adapters") if _is_gguf(artifact) else artifact / "adapters"


def _suffix(artifact: Path) -> str:
    return _BESIDE if _is_gguf(artifact) else _IN_FOLDER


def _is_gguf(artifact: Path) -> bool:
    # By its name, for the artifact may not be written yet.
    return artifact.suffix == ".gguf"
