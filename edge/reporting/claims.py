"""What a bundle says of itself: where it came from, how it was made, and what its proof found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import BundleError
from edge.bundle import MANIFEST, PROOF, Bundle, Variant


@dataclass(frozen=True)
class File:
    """A file of a source or of the bundle."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """`model`: facts by name, as the manifest has them."""

    pin: str
    licence: str | None
    sources: tuple[File, ...]
    files: tuple[File, ...]
    tools: Mapping[str, str]
    model: Mapping[str, Any]


MEMORY = ("weights", "kv_cache", "workspace", "runtime")
"""The parts of `edge.fitting.memory.Memory` that add up to its total."""


@dataclass(frozen=True)
class Facts:
    """Of a variant. capped: why its context is shorter than was asked for. memory: bytes on the device by part, with
    the context full; None in the bundle of an older edge."""

    capped: str | None
    memory: Mapping[str, int] | None


@dataclass(frozen=True)
class Check:
    """One measured figure of a proof. `at_most`: whether the limit is a ceiling (KL) or a floor (agreement)."""

    question: str
    measure: str
    value: float
    limit: float
    at_most: bool

    @property
    def passed(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(frozen=True)
class Proof:
    """What a proof says of one variant."""

    passed: bool
    runtime: str | None
    tokens: int
    weights: int | None
    checks: tuple[Check, ...]
    failures: tuple[str, ...]


def provenance(bundle: Bundle) -> Provenance:
    """From the manifest. BundleError when a key is missing or of another kind."""
    manifest = bundle.manifest
    with _damaged(bundle.directory / MANIFEST):
        source, model = manifest["source"], manifest["model"]
        return Provenance(
            pin=str(source["pin"]),
            licence=None if source["licence"] is None else str(source["licence"]),
            sources=_files(source["files"]),
            files=_files(manifest["files"]),
            tools={str(name): str(version) for name, version in manifest["tools"].items()},
            model={str(key): value for key, value in model.items() if isinstance(value, str | int | float)},
        )


def facts(bundle: Bundle, variant: Variant) -> Facts:
    """The manifest's entry of a variant. BundleError when it is damaged."""
    entry = next(e for e in bundle.manifest["variants"] if e["name"] == variant.name)
    with _damaged(bundle.directory / MANIFEST):
        memory = entry.get("device_memory")
        reason = entry.get("context_reason")
        return Facts(
            None if reason is None else str(reason),
            None if memory is None else {part: int(memory[part]) for part in MEMORY},
        )


def read_proofs(bundle: Bundle) -> dict[str, Proof]:
    """By variant; empty when the bundle carries no proof. BundleError when proof.json is damaged."""
    file = bundle.directory / PROOF
    if not file.is_file():
        return {}
    with _damaged(file):
        variants = json.loads(file.read_text(encoding="utf-8"))["variants"]
        return {str(name): _proof(found) for name, found in variants.items()}


def _proof(found: Mapping[str, Any]) -> Proof:
    checks = []
    for key, limit in sorted(found["limits"].items()):
        question, _, measure = key.partition("_")
        if question in found:
            value = float(found[question][measure])
            checks.append(Check(question, measure, value, float(limit), measure.startswith("kl")))
    stored = found.get("stored")
    return Proof(
        passed=bool(found["passed"]),
        runtime=None if found.get("runtime") is None else str(found["runtime"]),
        tokens=int(found["tokens"]),
        weights=None if stored is None else stored.get("weights"),
        checks=tuple(checks),
        failures=tuple(str(failure) for failure in found["failures"]),
    )


def _files(listed: Mapping[str, Any]) -> tuple[File, ...]:
    return tuple(File(str(p), int(e["size"]), str(e["sha256"])) for p, e in sorted(listed.items()))


@contextmanager
def _damaged(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{file} is damaged: {type(error).__name__}: {error}",
            hint="check it with `edge verify`, or make the bundle again with `edge convert`",
        ) from None
