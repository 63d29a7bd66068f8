"""`edge convert`: plan what a checkpoint becomes on each target, then do it in one streamed pass."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from converters import gguf, onnx
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import MachineError, ProofError, UnsupportedError
from converters.models import describe
from converters.writer import ArtifactWriter
from edge import streaming
from edge.bundle import MANIFEST, PROOF, hash_files, write_json
from edge.machine import cores, peak_memory
from edge.manifest import build_manifest, copy_shared_files
from edge.progress import Progress
from edge.proof import Subject, prove
from edge.sources import Resolved, resolve
from edge.staging import staging
from edge.targets import Target, get_target
from quant.recipe import Precision, Recipe

ROOMS = {"onnx": onnx, "gguf": gguf}
KV_BYTES = {"onnx": 4, "gguf": 2}  # float32 cache in the CPU graph, float16 by llama.cpp's default
# Interpreter, numpy and onnx, measured with `edge convert --dry-run`; each chunk in flight has its raw rows,
# float32 scratch, codes and packed bytes: about five times CHUNK_BYTES.
BASE_MEMORY = 150 << 20
CHUNK_FACTOR = 5


@dataclass(frozen=True)
class ConvertRequest:
    """What the person asked for; None means the target's (or the machine's) default."""

    checkpoint: str
    targets: tuple[str, ...]
    precision: str | None = None
    context: int | None = None
    output: Path | None = None
    proof: bool = True
    allow_unproven: bool = False
    threads: int | None = None
    recipe: Path | None = None
    locked: bool = False
    frozen: bool = False


@dataclass(frozen=True)
class PlannedVariant:
    """One artifact to be: every target in `targets` takes this same file or folder."""

    name: str
    format: str
    relative_path: str
    targets: tuple[Target, ...]
    precision: str
    recipe: Recipe
    context_length: int
    context_reason: str | None
    disk_bytes: int
    device_bytes: int

    def to_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "format": self.format,
            "path": self.relative_path,
            "targets": [t.name for t in self.targets],
            "precision": self.precision,
            "context_length": self.context_length,
            "context_reason": self.context_reason,
            "disk_bytes": self.disk_bytes,
            "device_memory_bytes": self.device_bytes,
        }


@dataclass(frozen=True)
class Plan:
    """Everything that is known before a byte is written."""

    request: ConvertRequest
    source: Resolved
    decoder: Decoder
    variants: tuple[PlannedVariant, ...]
    output: Path
    threads: int
    notes: tuple[str, ...]
    read_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Expected peak of the conversion; it does not depend on the model's size."""
        return BASE_MEMORY + 2 * self.threads * CHUNK_FACTOR * streaming.CHUNK_BYTES

    def to_data(self) -> dict[str, Any]:
        return {
            "source": self.source.source,
            "architecture": self.decoder.architecture,
            "parameters": self.decoder.parameters,
            "output": str(self.output),
            "variants": [v.to_data() for v in self.variants],
            "read_bytes": self.read_bytes,
            "write_bytes": sum(v.disk_bytes for v in self.variants),
            "memory_bytes": self.memory_bytes,
            "threads": self.threads,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Report:
    """What was published, and what it took. `peak_memory_bytes` is this process, `proof` the proof.json."""

    output: Path
    variants: tuple[dict[str, Any], ...]
    proof: dict[str, Any] | None
    seconds: float
    read_bytes: int
    peak_memory_bytes: int
    notes: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "variants": list(self.variants),
            "proof": self.proof,
            "seconds": round(self.seconds, 3),
            "read_bytes": self.read_bytes,
            "mb_per_second": round(self.read_bytes / 1e6 / max(self.seconds, 1e-9), 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "notes": list(self.notes),
        }


def plan(request: ConvertRequest, progress: Progress | None = None) -> Plan:
    """Resolve, describe and check; writes nothing but the download cache.

    Raises any EdgeError: an unknown target, a checkpoint that is damaged or not understood, a model that a
    target's runtime cannot run rightly.
    """
    if not request.targets:
        raise UnsupportedError("no target is named", hint="add --target android or --target cpu")
    targets = [get_target(name) for name in dict.fromkeys(request.targets)]
    source = resolve(request.checkpoint, locked=request.locked, frozen=request.frozen, progress=progress)
    with Checkpoint.open(source.directory) as checkpoint:
        decoder = describe(checkpoint)
        read_bytes = sum(t.nbytes for t in checkpoint.tensors.values())
    variants = _variants(request, targets, decoder, source.name)
    output = request.output or Path("bundles") / f"{source.name}-{'-'.join(t.name for t in targets)}"
    return Plan(
        request=request,
        source=source,
        decoder=decoder,
        variants=tuple(variants),
        output=output,
        threads=request.threads or cores(),
        notes=tuple(_notes(variants, decoder)),
        read_bytes=read_bytes,
    )


def _variants(
    request: ConvertRequest, targets: Sequence[Target], decoder: Decoder, name: str
) -> list[PlannedVariant]:
    grouped: dict[tuple[str, str, int], list[Target]] = {}
    for target in targets:
        precision = request.precision or target.precision
        if precision not in target.limits:
            raise UnsupportedError(
                f"target '{target.name}' does not take precision {precision}",
                hint=f"choose one of {', '.join(target.limits)}",
            )
        asked = request.context or target.context_length
        grouped.setdefault((target.format, precision, asked), []).append(target)
    variants = []
    for (format_name, precision, asked), members in grouped.items():
        room = ROOMS[format_name]
        recipe = Recipe.load(request.recipe) if request.recipe else Recipe.preset(cast(Precision, precision))
        room.check(decoder, recipe)
        limit, reason = room.context_limit(decoder)
        context = min(asked, limit)
        disk = room.planned_bytes(decoder, recipe, context_length=context)
        attention = decoder.attention
        kv = 2 * attention.kv_heads * attention.head_dim * len(decoder.layers) * context
        variants.append(
            PlannedVariant(
                name=f"{format_name}-{precision}",
                format=format_name,
                relative_path=f"{format_name}-{precision}"
                if format_name == "onnx"
                else f"{name}-{precision}.gguf",
                targets=tuple(members),
                precision=precision,
                recipe=recipe,
                context_length=context,
                context_reason=(reason or "the checkpoint's own limit") if context < asked else None,
                disk_bytes=disk,
                device_bytes=disk + kv * KV_BYTES[format_name],
            )
        )
    return variants


def _notes(variants: Sequence[PlannedVariant], decoder: Decoder) -> list[str]:
    notes: list[str] = []
    for variant in variants:
        if variant.context_reason:
            notes.append(
                f"{variant.name}: context is capped at {variant.context_length}: {variant.context_reason}"
            )
        for target in variant.targets:
            if variant.device_bytes > target.memory_mb << 20:
                notes.append(
                    f"{variant.name}: needs about {variant.device_bytes >> 20} MiB on the device, target "
                    f"'{target.name}' is meant for {target.memory_mb} MiB; a smaller --context needs less"
                )
        notes += [note for note in variant.recipe.notes(decoder) if note not in notes]
    return notes


def convert(planned: Plan, progress: Progress) -> Report:
    """Do what `planned` says and publish the bundle whole.

    Raises ProofError (nothing published) when the proof fails and the person did not allow that.
    """
    began = time.perf_counter()
    request, output = planned.request, planned.output
    for note in planned.notes:
        progress.note(note)
    with staging(output) as directory, Checkpoint.open(planned.source.directory) as checkpoint:
        decoder = describe(checkpoint)
        _require_space(planned, directory)
        read = _stream(planned, decoder, checkpoint, directory, progress)
        converted = time.perf_counter() - began
        copy_shared_files(planned.source.directory, directory)
        proof = None
        if request.proof:
            proof = prove(checkpoint, decoder, _subjects(planned, directory), progress)
            write_json(directory / PROOF, proof)
            if not proof["passed"] and not request.allow_unproven:
                raise _failed(proof)
        progress.stage("hash", planned.to_data()["write_bytes"])
        manifest = build_manifest(planned, decoder, proof, hash_files(directory, progress.advance))
        write_json(directory / MANIFEST, manifest)
    progress.done()
    sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
    variants = [
        {
            **variant.to_data(),
            "disk_bytes": sum(n for name, n in sizes.items() if name.split("/")[0] == variant.relative_path),
        }
        for variant in planned.variants
    ]
    return Report(output, tuple(variants), proof, converted, read, peak_memory(), planned.notes)


def _require_space(planned: Plan, directory: Path) -> None:
    needed, free = sum(v.disk_bytes for v in planned.variants), shutil.disk_usage(directory).free
    if needed > free:
        raise MachineError(
            f"{planned.output} needs {needed / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB free",
            hint="free some space, or name another place with -o",
        )


def _stream(
    planned: Plan, decoder: Decoder, checkpoint: Checkpoint, directory: Path, progress: Progress
) -> int:
    writers: list[ArtifactWriter] = []
    streams: dict[str, tuple[Recipe, list[ArtifactWriter]]] = {}
    try:
        for variant in planned.variants:
            writer = _open_writer(planned, variant, decoder, directory)
            writers.append(writer)
            key = json.dumps(variant.recipe.to_data(), sort_keys=True)
            streams.setdefault(key, (variant.recipe, []))[1].append(writer)
        read = streaming.run(
            checkpoint,
            decoder,
            [streaming.Stream(recipe, group) for recipe, group in streams.values()],
            threads=planned.threads,
            progress=progress,
        )
        progress.stage("write out")
        for writer in writers:
            writer.close()
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    return read


def _open_writer(planned: Plan, variant: PlannedVariant, decoder: Decoder, directory: Path) -> ArtifactWriter:
    path = directory / variant.relative_path
    source = planned.source.directory
    if variant.format == "onnx":
        path.mkdir()
        return onnx.open_writer(
            decoder, variant.recipe, path, context_length=variant.context_length, checkpoint_directory=source
        )
    return gguf.open_writer(
        decoder,
        variant.recipe,
        path,
        context_length=variant.context_length,
        checkpoint_directory=source,
        model_name=planned.source.name,
    )


def _subjects(planned: Plan, directory: Path) -> list[Subject]:
    return [
        Subject(
            name=v.name,
            format=v.format,
            path=directory / v.relative_path,
            recipe=v.recipe,
            context_length=v.context_length,
            limits=v.targets[0].limits[v.precision],
        )
        for v in planned.variants
    ]


def _failed(proof: dict[str, Any]) -> ProofError:
    name, first = next((n, v["failures"][0]) for n, v in proof["variants"].items() if v["failures"])
    count = sum(len(v["failures"]) for v in proof["variants"].values())
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ProofError(
        f"the proof of {name} failed: {first}{more}; nothing was published",
        hint="`--allow-unproven` publishes it all the same, and the manifest says so",
    )
