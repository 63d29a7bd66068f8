"""model.json: what the app on the phone must know of a GGUF before it opens it (apps/android/PROTOCOL.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import BundleError
from converters.gguf.reader import Gguf
from edge import bundle as bundles
from edge.packaging.gguf_numbers import GgufNumbers

FORMAT = 1
FILE = "model.gguf"
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


@dataclass(frozen=True)
class PhoneModel:
    """A GGUF and the text of its model.json."""

    gguf: Path
    description: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.description["id"])

    @property
    def size(self) -> int:
        return int(self.description["size"])

    @property
    def sha256(self) -> str:
        return str(self.description["sha256"])

    @property
    def json(self) -> bytes:
        return (json.dumps(self.description, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def load(model: Path, variant: str | None, advance: Callable[[int], None]) -> PhoneModel:
    """The phone's model of a bundle (the GGUF variant, or the one named) or of a GGUF file, every byte hashed.

    Raises BundleError for a bundle that is damaged or holds no such variant, CheckpointError for a damaged GGUF,
    UnsupportedError for a model that the app cannot talk to.
    """
    if bundles.is_bundle(model):
        return _of_bundle(bundles.load(model), variant, advance)
    if not model.is_file():
        raise BundleError(f"{model} is no bundle and no GGUF file", hint="edge convert NAME --target android")
    if variant is not None:
        raise BundleError(f"{model} is no bundle: it has no variants", hint="leave --variant out")
    return PhoneModel(model, _described(model, bundles.sha256(model, advance), name=model.stem))


def size(model: Path) -> int:
    """About how many bytes `load` reads."""
    files = model.glob("*.gguf") if model.is_dir() else [model]
    return sum(file.stat().st_size for file in files if file.is_file())


def _of_bundle(made: bundles.Bundle, variant: str | None, advance: Callable[[int], None]) -> PhoneModel:
    usable = [v for v in made.variants if v.format == "gguf" and variant in (None, v.name)]
    if not usable:
        targets = ", ".join(sorted({t for v in made.variants for t in v.targets}))
        what = "no GGUF variant" if variant is None else f"no GGUF variant '{variant}'"
        raise BundleError(
            f"{made.directory} holds {what}: it is for {targets}",
            hint="the app runs GGUF files: edge convert NAME --target android",
        )
    chosen = usable[0]
    listed = made.manifest["files"].get(chosen.path.relative_to(made.directory).as_posix())
    if listed is None or not chosen.path.is_file():
        raise BundleError(f"{chosen.path} is missing", hint="make the bundle again with `edge convert`")
    digest = bundles.sha256(chosen.path, advance)
    if digest != listed["sha256"]:
        raise BundleError(
            f"{chosen.path} has SHA-256 {digest}, the manifest says {listed['sha256']}",
            hint="make the bundle again with `edge convert`, or copy it again from where it came",
        )
    source, model = made.manifest.get("source", {}), made.manifest.get("model", {})
    description = _described(
        chosen.path,
        digest,
        name=made.name,
        precision=chosen.precision,
        context=chosen.context_length,
        source=source.get("pin"),
        licence=source.get("licence"),
        parameters=model.get("parameters"),
        sampling=_sampling(made.directory / "generation_config.json"),
    )
    return PhoneModel(chosen.path, description)


def _described(
    gguf: Path,
    sha256: str,
    *,
    name: str,
    precision: str = "",
    context: int | None = None,
    source: str | None = None,
    licence: str | None = None,
    parameters: int | None = None,
    sampling: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    with Gguf.open(gguf) as opened:
        numbers = GgufNumbers(opened)
        limit = numbers.context()
        context = min(context or limit, limit)
        own = "-".join(word for word in (name, precision) if word)
        return {
            "format": FORMAT,
            "id": re.sub(r"[^a-z0-9._-]+", "-", own.lower()).strip("-.")[:80] or "model",
            "name": name,
            "file": FILE,
            "size": gguf.stat().st_size,
            "sha256": sha256,
            "source": source or "",
            "licence": licence or str(opened.metadata.get("general.license", "")),
            "architecture": numbers.architecture,
            "precision": precision,
            "parameters": parameters or numbers.parameters(),
            "context": context,
            "kv_bytes_per_token": numbers.kv_bytes(),
            "work_bytes": numbers.work_bytes(context),
            # The writer puts every end token into the GGUF itself.
            "stop": [],
            "sampling": dict(sampling or {}),
            "turns": numbers.turns(),
        }


def _sampling(file: Path) -> dict[str, float]:
    """The model's own way to draw tokens, {} where it names none: greedy."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict) or config.get("do_sample") is not True:
        return {}
    return {ours: config[key] for key, ours in _SAMPLING.items() if type(config.get(key)) in (int, float)}
