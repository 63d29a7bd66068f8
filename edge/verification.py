"""`edge verify`: are a bundle's files the ones that were published, and do they still say the same?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.models import describe_whole
from converters.multimodal import Multimodal, text_of
from edge.adapters import with_adapters
from edge.bundle import Bundle, damage, load
from edge.encoder.proof import prove_anew
from edge.progress import Progress
from edge.proof import Subject, prove
from edge.sources import resolve
from edge.targets import get_target, strictest
from quant.recipe import Recipe


@dataclass(frozen=True)
class Verification:
    """`damage`: one line per file that differs. `proof`: a fresh proof.json, when a checkpoint was given."""

    directory: Path
    claimed: str
    files: int
    damage: tuple[str, ...]
    proof: dict[str, Any] | None
    unproven_adapters: tuple[str, ...] = ()
    """Those of the bundle that the fresh proof leaves out, because nobody gave their directories."""

    @property
    def ok(self) -> bool:
        return not self.damage and (self.proof is None or bool(self.proof["passed"]))

    def to_data(self) -> dict[str, Any]:
        return {
            "bundle": str(self.directory),
            "ok": self.ok,
            "files": self.files,
            "damage": list(self.damage),
            "manifest_proof": self.claimed,
            "proof": self.proof,
            "unproven_adapters": list(self.unproven_adapters),
        }


def verify(
    directory: Path, against: str | None, progress: Progress, *, adapters: Sequence[str] = ()
) -> Verification:
    """Hash every file of the bundle; with `against` (a checkpoint or a locked name) prove it anew.

    adapters: DIR or NAME=DIR of those that it was made with and that are to be proven too. A damaged bundle is not
    run: its proof is left out. Raises BundleError when there is no readable manifest.
    """
    bundle = load(directory)
    progress.stage("hash", sum(entry["size"] for entry in bundle.manifest["files"].values()))
    wrong = damage(bundle, progress.advance)
    proof = None
    unproven: list[str] = []
    if against is not None and not wrong and bundle.encodes:
        progress.stage("prove")
        proof = prove_anew(bundle, resolve(against, progress=progress).directory)
    elif against is not None and not wrong:
        with Checkpoint.open(resolve(against, progress=progress).directory) as checkpoint:
            model = describe_whole(checkpoint)
            decoder = with_adapters(checkpoint, text_of(model), adapters)
            whole = model if isinstance(model, Multimodal) else decoder
            proof = prove(checkpoint, whole, subjects(bundle), progress)
        given = {lora.name for lora in decoder.adapters}
        unproven = [name for name in bundle.adapters if name not in given]
    progress.done()
    return Verification(
        directory,
        str(bundle.manifest["proof"]),
        len(bundle.manifest["files"]),
        tuple(wrong),
        proof,
        tuple(unproven),
    )


def subjects(bundle: Bundle) -> list[Subject]:
    """What the manifest says must be proven, with the limits of its first target."""
    return [
        Subject(
            name=variant.name,
            format=variant.format,
            path=variant.path,
            recipe=Recipe.from_data(variant.recipe),
            context_length=variant.context_length,
            source=variant.source,
            tokens=min(get_target(name).proof_tokens for name in variant.targets),
            limits=strictest([get_target(name).limits_of(variant.precision) for name in variant.targets]),
            approximate=variant.approximate is not None,
        )
        for variant in bundle.variants
    ]
