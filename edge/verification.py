"""`edge verify`: are a bundle's files the ones that were published, and do they still say the same?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.models import describe
from edge.bundle import Bundle, damage, load
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
        }


def verify(directory: Path, against: str | None, progress: Progress) -> Verification:
    """Hash every file of the bundle; with `against` (a checkpoint or a locked name) prove it anew.

    A damaged bundle is not run: its proof is left out. Raises BundleError when there is no readable manifest.
    """
    bundle = load(directory)
    progress.stage("hash", sum(entry["size"] for entry in bundle.manifest["files"].values()))
    wrong = damage(bundle, progress.advance)
    proof = None
    if against is not None and not wrong:
        with Checkpoint.open(resolve(against, progress=progress).directory) as checkpoint:
            proof = prove(checkpoint, describe(checkpoint), subjects(bundle), progress)
    progress.done()
    return Verification(
        directory, str(bundle.manifest["proof"]), len(bundle.manifest["files"]), tuple(wrong), proof
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
        )
        for variant in bundle.variants
    ]
