"""`edge convert`: do what a plan says, in one streamed pass, and publish a proven bundle whole."""

from __future__ import annotations

import importlib.util
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import MachineError, ProofError, UnsupportedError
from converters.models import describe_whole
from converters.multimodal import Multimodal, text_of
from converters.rooms import ADAPTER_ROOMS, MULTIMODAL, ROOMS, described, rewriting
from converters.writer import ArtifactWriter
from edge import streaming
from edge.adapters import adapter_records, with_adapters
from edge.bundle import MANIFEST, PROOF, hash_files, list_files, write_json
from edge.calibration import calibrate
from edge.formats import FORMATS
from edge.machine import peak_memory
from edge.manifest import build_manifest, copy_shared_files
from edge.npu.contexts import place
from edge.plan import plan
from edge.planned import ConvertRequest, Plan, PlannedVariant
from edge.progress import Progress
from edge.proof import Subject, prove
from edge.ranges import with_ranges
from edge.staging import staging, sync_tree
from edge.targets import Target, strictest
from quant.recipe import Recipe

__all__ = ["ConvertRequest", "Plan", "Report", "convert", "plan"]


@dataclass(frozen=True)
class Report:
    """What was published, and what it took. `seconds` are the streamed pass's, without calibration and proof;
    `peak_memory_bytes` is this process, `proof` the proof.json."""

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


def convert(planned: Plan, progress: Progress) -> Report:
    """Do what `planned` says and publish the bundle whole.

    Raises ProofError (nothing published) when the proof fails and the person did not allow that.
    """
    request, output = planned.request, planned.output
    if request.proof:
        for variant in planned.variants:
            _require_engine(variant.targets[0])
    for note in planned.notes:
        progress.note(note)
    with staging(output) as directory, Checkpoint.open(planned.source.directory) as checkpoint:
        model = describe_whole(checkpoint)
        decoder = with_adapters(checkpoint, text_of(model), request.adapters)
        model = model if isinstance(model, Multimodal) else decoder
        _require_space(planned, directory)
        planned, calibration = _calibrated(planned, checkpoint, decoder, progress)
        planned, ranges = with_ranges(planned, checkpoint, decoder, progress)
        began = time.perf_counter()
        read = _stream(planned, model, checkpoint, directory, progress)
        converted = time.perf_counter() - began
        placement = place(planned, directory, progress)
        copy_shared_files(planned.source.directory, directory)
        proof = None
        if request.proof:
            proof = prove(checkpoint, model, _subjects(planned, directory), progress)
            write_json(directory / PROOF, proof)
            if not proof["passed"] and not request.allow_unproven:
                raise _failed(proof)
        manifest = build_manifest(planned, decoder, proof, _hash_and_sync(directory, progress))
        if request.adapters:
            manifest["adapters"] = adapter_records(decoder, request.adapters)
        if calibration:
            manifest["calibration"] = calibration
        if ranges:
            manifest["activations"] = ranges
        if placement:
            manifest["placement"] = placement
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


def _calibrated(
    planned: Plan, checkpoint: Checkpoint, decoder: Decoder, progress: Progress
) -> tuple[Plan, dict[str, Any]]:
    """The plan with calibrated recipes knowing their codes, and by recipe name how those were chosen."""
    if planned.calibration is None:
        return planned, {}
    found: dict[Recipe, Recipe] = {}
    record = {}
    for recipe in dict.fromkeys(variant.recipe for variant in planned.variants):
        if recipe.to_calibrate(decoder):
            codes, done = calibrate(
                checkpoint,
                decoder,
                recipe,
                planned.calibration.text,
                spill=planned.calibration.spill,
                progress=progress,
            )
            found[recipe] = replace(recipe, codes=codes)
            record[recipe.name] = done
    variants = tuple(replace(v, recipe=found.get(v.recipe, v.recipe)) for v in planned.variants)
    return replace(planned, variants=variants), record


def _hash_and_sync(directory: Path, progress: Progress) -> dict[str, dict[str, Any]]:
    """The processor hashes while the disk writes."""
    progress.stage("hash and sync", sum((directory / name).stat().st_size for name in list_files(directory)))
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(sync_tree, directory)
        files = hash_files(directory, progress.advance)
        synced.result()
    return files


def _require_engine(target: Target) -> None:
    for engine in FORMATS[target.format].engines:
        if importlib.util.find_spec(engine.module) is None:
            raise UnsupportedError(
                f"the proof of target '{target.name}' runs the result in {engine.title}, which is not installed",
                hint=f"{engine.install} (or --no-proof)",
            )


def _require_space(planned: Plan, directory: Path) -> None:
    needed, free = sum(v.disk_bytes for v in planned.variants), shutil.disk_usage(directory).free
    if needed > free:
        raise MachineError(
            f"{planned.output} needs {needed / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB free",
            hint="free some space, or name another place with -o",
        )


def _stream(
    planned: Plan,
    model: Decoder | Multimodal,
    checkpoint: Checkpoint,
    directory: Path,
    progress: Progress,
) -> int:
    decoder = text_of(model)
    whole = any(variant.format == MULTIMODAL for variant in planned.variants)
    weights = list((model if whole else decoder).weights())
    writers: list[ArtifactWriter] = []
    streams: dict[tuple[Recipe, str], streaming.Stream] = {}
    try:
        for variant in (v for v in planned.variants if v.source is None):
            writer = _open_writer(planned, variant, described(variant.format, model), directory)
            writers.append(writer)
            if foreign := [weight.name for weight in decoder.weights() if not writer.holds(weight)]:
                raise ValueError(f"{variant.name} has no place for {foreign[0]}")
            rewritten = rewriting(variant.format, decoder)
            # What is rewritten for a format is encoded for it alone.
            key = (variant.recipe, variant.format if rewritten else "")
            change = rewritten.change(checkpoint) if rewritten and key not in streams else None
            streams.setdefault(key, streaming.Stream(variant.recipe, [], change)).writers.append(writer)
            if decoder.adapters and variant.format in ADAPTER_ROOMS:
                path = directory / variant.relative_path
                ADAPTER_ROOMS[variant.format].write_adapters(checkpoint, decoder, variant.recipe, path)
        read = streaming.run(
            checkpoint,
            weights,
            list(streams.values()),
            threads=planned.threads,
            progress=progress,
            left_out=_left_out(model, weights, checkpoint),
        )
        for writer in writers:
            writer.close()
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    return read


def _left_out(model: Decoder | Multimodal, weights: list[Weight], checkpoint: Checkpoint) -> frozenset[str]:
    """Tensors that nothing asks for: encoders where only text does, and what no encoder computes with."""
    if not isinstance(model, Multimodal):
        return frozenset()
    asked = {part.tensor for weight in weights for part in weight.parts}
    return model.unused(checkpoint.tensors) | {
        part.tensor for weight in model.weights() for part in weight.parts if part.tensor not in asked
    }


def _open_writer(planned: Plan, variant: PlannedVariant, content: Any, directory: Path) -> ArtifactWriter:
    return ROOMS[variant.format].open_writer(
        content,
        variant.recipe,
        directory / variant.relative_path,
        context_length=variant.context_length,
        checkpoint_directory=planned.source.directory,
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
            limits=strictest([t.limits_of(v.precision) for t in v.targets]),
            source=v.source,
            tokens=min(t.proof_tokens for t in v.targets),
            approximate=v.approximate is not None,
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
