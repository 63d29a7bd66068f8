"""manifest.json and the files that a whole bundle shares."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.checkpoint_files import open_inside
from converters.decoder import Decoder
from edge.bundle import FORMAT

if TYPE_CHECKING:
    from edge.planned import Plan

SHARED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "NOTICE",
)
# Only what decides the bytes of a bundle.
TOOLS = ("edge", "numpy", "onnx", "gguf")


def check_side_files(checkpoint: Path) -> None:
    """CheckpointError when a file beside the weights is a link that leads out of the checkpoint.

    A bundle is given away: what such a link points at must not end up in it.
    """
    directory = checkpoint.resolve()
    for name in (*SHARED_FILES, "added_tokens.json", "tokenizer.model"):
        if os.path.lexists(directory / name):
            os.close(open_inside(directory, name))


def copy_shared_files(checkpoint: Path, bundle: Path) -> None:
    """Tokenizer, chat template and licence texts, as they are, to the bundle's root."""
    for name in SHARED_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, bundle / name)


def build_manifest(
    planned: Plan,
    decoder: Decoder,
    proof: dict[str, Any] | None,
    files: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The manifest of a finished staging directory whose hashed files are `files` (format: see edge.bundle)."""
    verdict = "unproven: --no-proof" if proof is None else "passed" if proof["passed"] else "unproven: failed"
    source = planned.source
    return {
        "format": FORMAT,
        "name": source.name,
        "source": {
            "pin": source.source,
            "licence": source.licence,
            "files": {f.path: {"size": f.size, "sha256": f.sha256} for f in source.files},
        },
        "model": {
            "architecture": decoder.architecture,
            "model_type": decoder.model_type,
            "parameters": decoder.parameters,
            "layers": decoder.depth,
            "hidden_size": decoder.hidden_size,
            "vocab_size": decoder.vocab_size,
            "tied_embeddings": decoder.tied,
        },
        "tools": {name: tool_version(name) for name in TOOLS},
        "variants": [{**v.to_data(), "recipe": v.recipe.to_data()} for v in planned.variants],
        "proof": verdict,
        "files": files,
    }


def tool_version(name: str) -> str:
    """The version of an installed package, as manifests tell it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
