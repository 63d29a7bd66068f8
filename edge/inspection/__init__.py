"""`edge inspect`: what a directory or file is and holds, from its headers alone; no weight is loaded.

Headers come from strangers: every reader here bounds what it allocates by what the file can hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError
from edge.bundle import is_bundle
from edge.inspection import bundle, checkpoint, gguf, onnx

__all__ = ["inspect"]


def inspect(path: Path) -> dict[str, Any]:
    """Facts as plain JSON values. `kind` is bundle, checkpoint, gguf, onnx_folder or onnx_graph.

    Raises UnsupportedError for anything else, and the reader's error for a damaged one.
    """
    # A bundle first: files of its variants may lie at its root. No bundle lies in a bundle.
    return bundle.inspect(path, _inspect_one) if is_bundle(path) else _inspect_one(path)


def _inspect_one(path: Path) -> dict[str, Any]:
    if path.is_dir():
        if (path / "genai_config.json").is_file():
            return onnx.inspect_folder(path)
        if (path / "model.onnx").is_file() and not (path / "config.json").is_file():
            return onnx.inspect_graph(path / "model.onnx")
        if (path / "config.json").is_file():
            return checkpoint.inspect(path)
        raise UnsupportedError(
            f"{path} holds neither config.json, genai_config.json nor manifest.json",
            hint="name a checkpoint, an ONNX folder or a bundle",
        )
    if not path.is_file():
        raise UnsupportedError(f"{path} does not exist", hint="check the path")
    if path.suffix == ".onnx":
        return onnx.inspect_graph(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return gguf.inspect(path)
    if path.suffix == ".safetensors":
        raise UnsupportedError(
            f"{path} is one file of a checkpoint", hint=f"name its directory: edge inspect {path.parent}"
        )
    raise UnsupportedError(
        f"{path} is neither a GGUF nor an ONNX file",
        hint="name a checkpoint directory, a .gguf or an .onnx file",
    )
