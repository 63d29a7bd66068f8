"""The deliverable: a directory with variants, tokenizer files, manifest.json and proof.json.

manifest.json (format 1):
    format, name, source {pin, licence, files}, model {architecture, parameters, ...}, tools {name: version},
    variants [{name, format, path, targets, precision, context_length, context_reason, recipe, ...}],
    adapters [{name, layers, largest_rank, files}] where there are some,
    proof ("passed" | "unproven: <why>"), files {relative path: {size, sha256}}.
Everything in it is a function of the inputs: no time, no absolute path, keys sorted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converters.errors import BundleError, UnsupportedError
from edge.formats import ENCODER, FORMATS

MANIFEST = "manifest.json"
PROOF = "proof.json"
FORMAT = 1
HASH_THREADS = 4
MAX_MANIFEST_BYTES = 16 << 20
_REMAKE = "make it again with `edge convert`"


@dataclass(frozen=True)
class Variant:
    """One artifact of a bundle; `path` is absolute: a folder with genai_config.json, or a .gguf file."""

    name: str
    format: str
    path: Path
    targets: tuple[str, ...]
    precision: str
    context_length: int
    recipe: Mapping[str, Any]
    source: str | None = None
    """The variant that a context binary was compiled from."""
    approximate: str | None = None
    """Why it is not the same model, where its runtime computes something else."""


@dataclass(frozen=True)
class Bundle:
    """A directory whose manifest was read; its files are not hashed until `damage` is asked."""

    directory: Path
    manifest: Mapping[str, Any]
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that every variant can switch on."""
        return tuple(str(entry["name"]) for entry in self.manifest.get("adapters", ()))

    @property
    def encodes(self) -> bool:
        """Whether it holds an encoder, which writes no text."""
        return all(variant.format == ENCODER for variant in self.variants)


def refuse_encoder(bundle: Bundle) -> None:
    """Raises UnsupportedError for a bundle whose model writes no text."""
    if bundle.encodes:
        raise UnsupportedError(
            f"{bundle.directory} holds an encoder, which writes no text",
            hint=f"edge classify {bundle.directory} TEXT"
            if bundle.manifest["model"].get("labels")
            else f"edge serve {bundle.directory}",
        )


def is_bundle(path: Path) -> bool:
    """True when `path` is a directory with a manifest.json."""
    return (path / MANIFEST).is_file()


def load(directory: Path) -> Bundle:
    """Read a bundle's manifest. Raises BundleError when it is missing, damaged, or leaves its directory."""
    file = directory / MANIFEST
    if not file.is_file():
        raise BundleError(f"{directory} is not a bundle: it has no {MANIFEST}", hint=_REMAKE)
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{file} is larger than {MAX_MANIFEST_BYTES >> 20} MiB", hint=_REMAKE)
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise BundleError(
                f"{file} has format {manifest['format']}, this edge reads {FORMAT}",
                hint="make the bundle again, or install the edge version that made it",
            )
        variants = tuple(
            Variant(
                name=entry["name"],
                format=entry["format"],
                path=inside(directory, entry["path"]),
                targets=tuple(entry["targets"]),
                precision=str(entry["precision"]),
                context_length=int(entry["context_length"]),
                recipe=entry["recipe"],
                source=entry.get("compiled_from"),
                approximate=entry.get("approximate"),
            )
            for entry in manifest["variants"]
        )
        for variant in variants:
            sound = variant.format in FORMATS and variant.targets and variant.context_length > 0
            if not sound or not f"{variant.name}{variant.approximate}".isprintable():
                raise ValueError(f"variant {variant.name}")
        names = {v.name for v in variants}
        if not variants or len(names) < len(variants):
            raise ValueError("no variant, or two of one name")
        if unknown := [v.name for v in variants if v.source and v.source not in names]:
            raise ValueError(f"variant {unknown[0]} is compiled from one that is not there")
        for name, entry in manifest["files"].items():
            inside(directory, name)
            if not isinstance(entry["size"], int) or not isinstance(entry["sha256"], str):
                raise ValueError(f"files: {name}")
        for entry in manifest.get("adapters", ()):
            if not isinstance(entry["name"], str) or not entry["name"].isprintable():
                raise ValueError("adapters")
        for key in ("name", "proof"):
            if not isinstance(manifest[key], str) or not manifest[key].isprintable():
                raise ValueError(key)
        if manifest["proof"] == "passed" and PROOF not in manifest["files"]:
            raise ValueError(f"proof passed, and no {PROOF}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{file} is damaged: {type(error).__name__}: {error}", hint=_REMAKE) from None
    return Bundle(directory, manifest, variants)


def inside(directory: Path, relative: str) -> Path:
    """`directory / relative`, or BundleError when that would leave the directory."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise BundleError(f"{directory / MANIFEST} names '{relative}', which leaves the bundle", hint=_REMAKE)
    return directory.joinpath(*pure.parts)


def sha256(file: Path, advance: Callable[[int], None] | None = None) -> str:
    """Hex SHA-256 of a file, read in 4 MiB pieces; `advance` is told the bytes of each."""
    digest = hashlib.sha256()
    buffer = bytearray(4 << 20)
    view = memoryview(buffer)
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(view[:count])
            if advance:
                advance(count)
    return digest.hexdigest()


def list_files(directory: Path) -> list[str]:
    """Relative POSIX paths of all files below `directory` but the manifest, sorted."""
    found = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir())
    return sorted(name for name in found if name != MANIFEST)


def hash_files(directory: Path, advance: Callable[[int], None] | None = None) -> dict[str, dict[str, Any]]:
    """{relative path: {size, sha256}} of all files below `directory` but the manifest, a few at a time."""
    names = list_files(directory)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = pool.map(lambda name: sha256(directory / name, advance), names)
        return {
            name: {"size": (directory / name).stat().st_size, "sha256": digest}
            for name, digest in zip(names, digests, strict=True)
        }


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Deterministic JSON: sorted keys, two spaces, one final newline."""
    file.write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def damage(bundle: Bundle, advance: Callable[[int], None] | None = None) -> list[str]:
    """Every way in which the files differ from the manifest, one line each; empty when the bundle is whole."""
    wrong: list[str] = []
    listed = bundle.manifest["files"]
    for name, entry in sorted(listed.items()):
        file = inside(bundle.directory, name)
        if file.is_symlink() or not os.path.isfile(file):  # noqa: PTH113  # is_file() raises for a long name
            wrong.append(f"{name} is missing")
        elif file.stat().st_size != entry["size"]:
            wrong.append(f"{name} has {file.stat().st_size} bytes, the manifest says {entry['size']}")
        elif (found := sha256(file, advance)) != entry["sha256"]:
            wrong.append(f"{name} has SHA-256 {found}, the manifest says {entry['sha256']}")
    wrong += [f"{name} is not in the manifest" for name in list_files(bundle.directory) if name not in listed]
    return wrong
