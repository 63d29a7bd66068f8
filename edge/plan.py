"""What a checkpoint will become on each target: everything that is known before a byte is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import CheckpointError, UnsupportedError
from converters.models import describe_whole
from converters.multimodal import Multimodal, text_of
from converters.rooms import ADAPTER_ROOMS, ROOMS, described, rewriting
from edge.adapters import base_notes, recipe_notes, with_adapters
from edge.bundle import is_bundle
from edge.calibration_cost import CalibrationPlan, plan_calibration
from edge.calibration_text import read_text
from edge.fit import device_memory
from edge.formats import FORMATS
from edge.machine import cores
from edge.manifest import check_side_files
from edge.mixed import Mixed, choose_recipe
from edge.modalities import format_of, notes_of, recipe_of
from edge.npu.socs import get_socs
from edge.npu.variants import FORMAT as NPU
from edge.npu.variants import emulation_note, with_contexts
from edge.planned import ConvertRequest, Plan, PlannedVariant
from edge.progress import Progress, Silent
from edge.sources import Resolved, resolve
from edge.sources.preview import preview
from edge.targets import Target, get_target
from quant.recipe import Precision, Recipe

MOST_THREADS = 8  # each takes memory, and the disk is the limit long before


@contextmanager
def find(
    request: ConvertRequest, progress: Progress | None = None, *, dry_run: bool = False
) -> Iterator[Resolved]:
    """The request's model, once its targets are known to be some.

    dry_run: it need not be here: of a model on a hub, config and headers are read. With a calibration or a budget it
    must be: the one needs its tokenizer, the other its weights.
    """
    _named_targets(request)
    if dry_run and not request.calibrate and not request.budget:
        with preview(
            request.checkpoint, locked=request.locked, frozen=request.frozen, progress=progress
        ) as source:
            yield source
    else:
        yield resolve(request.checkpoint, locked=request.locked, frozen=request.frozen, progress=progress)


def preview_plan(request: ConvertRequest, progress: Progress | None = None) -> Plan:
    """The plan of a model that need not be here: see `find` and `plan`."""
    with find(request, progress, dry_run=True) as source:
        return plan(request, progress, source=source)


def plan(
    request: ConvertRequest, progress: Progress | None = None, *, source: Resolved | None = None
) -> Plan:
    """Resolve (unless `source` is given), describe and check; writes nothing but the download cache.

    Raises any EdgeError: an unknown target, a checkpoint that is damaged or not understood, a model that a
    target's runtime cannot run rightly.
    """
    targets = _named_targets(request)
    source = source or resolve(
        request.checkpoint, locked=request.locked, frozen=request.frozen, progress=progress
    )
    with Checkpoint.open(source.directory) as checkpoint:
        read_bytes = sum(t.nbytes for t in checkpoint.tensors.values())
        model = describe_whole(checkpoint)
        if isinstance(model, Multimodal) and request.adapters:
            raise UnsupportedError(
                f"{source.name} takes images or speech, and no adapters but its own",
                hint="merge the adapter into the weights first: peft's merge_and_unload()",
            )
        decoder = with_adapters(checkpoint, text_of(model), request.adapters)
        model = model if isinstance(model, Multimodal) else decoder
    if not (source.directory / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{source.name} has no tokenizer.json, and a model without one cannot be used or proven",
            hint="save it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    check_side_files(source.directory)
    mixed = _mixed(request, targets, source.directory, model, progress or Silent())
    socs = get_socs(request.socs)
    variants = _variants(request, targets, model, source.name, mixed.recipe if mixed else None)
    variants = with_contexts(variants, decoder, socs)
    output = request.output or Path("bundles") / f"{source.name}-{'-'.join(t.name for t in targets)}"
    notes = ([mixed.note()] if mixed else []) + _notes(variants, model)
    notes += base_notes(request.adapters, source.source)
    for variant in variants:
        notes += recipe_notes(request.adapters, variant.name, variant.recipe)
    notes += emulation_note(variants, decoder) if request.proof else []
    calibration = _calibration(request, source.directory, decoder, variants)
    if is_bundle(output):
        notes.append(f"replaces the bundle that is in {output}")
    return Plan(
        request=request,
        source=source,
        model=model,
        decoder=decoder,
        variants=tuple(variants),
        output=output,
        threads=request.threads or min(cores(), MOST_THREADS),
        notes=tuple(notes),
        read_bytes=read_bytes,
        calibration=calibration,
        mixed=mixed,
    )


def _named_targets(request: ConvertRequest) -> list[Target]:
    if not request.targets:
        raise UnsupportedError("no target is named", hint="add --target android or --target cpu")
    targets = [get_target(name) for name in dict.fromkeys(request.targets)]
    if request.activations != "f16" and all(target.format != NPU for target in targets):
        raise UnsupportedError(
            f"--activations {request.activations} is for NPU targets, and none is named",
            hint="add --target android-npu",
        )
    return targets


def _calibration(
    request: ConvertRequest, directory: Path, decoder: Decoder, variants: Sequence[PlannedVariant]
) -> CalibrationPlan | None:
    recipes = {v.recipe for v in variants if v.recipe.to_calibrate(decoder)}
    if not request.calibrate:
        for recipe in recipes:
            raise UnsupportedError(
                f"recipe {recipe.name} asks for calibrated codes (method gptq)", hint="add --calibrate"
            )
        return None
    if not recipes:
        raise UnsupportedError(
            "there is nothing to calibrate: no linear layer is stored in blocks",
            hint="leave --calibrate away, or choose --precision int4",
        )
    file = None if request.calibrate is True else Path(request.calibrate)
    return plan_calibration(read_text(file, directory, decoder), decoder, len(recipes), spill=request.spill)


def _mixed(
    request: ConvertRequest,
    targets: Sequence[Target],
    directory: Path,
    model: Decoder | Multimodal,
    progress: Progress,
) -> Mixed | None:
    """The recipe that meets the budget, one for all targets."""
    if request.budget is None:
        return None
    file = request.calibrate if isinstance(request.calibrate, Path) else None
    if isinstance(model, Multimodal):
        raise UnsupportedError(
            "a budget is for models of text alone", hint="name a --precision or a --recipe instead"
        )
    windows = read_text(file, directory, model).windows
    artifacts = []
    for target in targets:
        room = ROOMS[target.format]
        context = min(request.context or target.context_length, room.context_limit(model)[0])
        artifacts.append(partial(room.planned_bytes, model, context_length=context))
    formats = [target.format for target in targets]
    with Checkpoint.open(directory) as checkpoint:
        return choose_recipe(checkpoint, model, windows, request.budget, formats, artifacts, progress)


def _variants(
    request: ConvertRequest,
    targets: Sequence[Target],
    model: Decoder | Multimodal,
    name: str,
    mixed: Recipe | None,
) -> list[PlannedVariant]:
    """One variant for all targets that take the same format, precision and (capped) context."""
    grouped: dict[tuple[str, Precision, int], list[Target]] = {}
    for target in targets:
        recipe = _recipe(request, target, mixed, model)
        precision = _coarsest(recipe, text_of(model))
        target.limits_of(precision)
        format_name = format_of(target, model)
        room, content = ROOMS[format_name], described(format_name, model)
        room.check(content, recipe)
        if request.adapters and format_name not in ADAPTER_ROOMS:
            raise UnsupportedError(
                f"target '{target.name}' cannot switch adapters at run time",
                hint="merge the adapter into the weights first (peft: merge_and_unload), or --target android or cpu",
            )
        context = min(request.context or target.context_length, room.context_limit(content)[0])
        grouped.setdefault((format_name, precision, context), []).append(target)
    labels = [f"{format_name}-{precision}" for format_name, precision, _ in grouped]
    variants = []
    for (format_name, precision, context), members in grouped.items():
        room, content = ROOMS[format_name], described(format_name, model)
        recipe = _recipe(request, members[0], mixed, model)
        label = f"{format_name}-{precision}"
        suffix = f"-{context}" if labels.count(label) > 1 else ""
        label += "-u16" if format_name == NPU and recipe.activations == "u16" else ""
        asked = max(request.context or target.context_length for target in members)
        reason = room.context_limit(content)[1] or "the checkpoint's own limit"
        disk = room.planned_bytes(content, recipe, context_length=context)
        if text_of(model).adapters and format_name in ADAPTER_ROOMS:
            disk += ADAPTER_ROOMS[format_name].adapter_bytes(text_of(model), recipe)
        file = f"{label}{suffix}" if FORMATS[format_name].folder else f"{name}-{precision}{suffix}.gguf"
        variants.append(
            PlannedVariant(
                name=label + suffix,
                format=format_name,
                relative_path=file,
                targets=tuple(members),
                precision=precision,
                recipe=recipe,
                context_length=context,
                context_reason=reason if context < asked else None,
                approximate=rewritten.why if (rewritten := rewriting(format_name, text_of(model))) else None,
                disk_bytes=disk,
                memory=device_memory(format_name, model, recipe, context, settings=members[0].profile.engine),
            )
        )
    return variants


def _recipe(
    request: ConvertRequest, target: Target, mixed: Recipe | None, model: Decoder | Multimodal
) -> Recipe:
    if mixed:
        recipe = mixed
    elif request.recipe:
        recipe = Recipe.load(request.recipe)
    else:
        precision = cast(Precision, request.precision or target.precision)
        recipe = Recipe.preset(precision, experts=text_of(model).has_experts)
    if target.format == NPU and request.activations == "u16":
        recipe = replace(recipe, activations="u16")
    recipe = recipe.calibrated() if request.calibrate else recipe
    return recipe if request.recipe else recipe_of(recipe, model)


def _coarsest(recipe: Recipe, decoder: Decoder) -> Precision:
    """The precision that a proof's limits are for: the one that loses most of those in the recipe."""
    used = {recipe.storage(weight) for weight in decoder.weights() if weight.is_matrix}
    if used & {"int4", "int4_asym", "int5"}:
        return "int4"
    order: tuple[Precision, ...] = ("int8", "bf16", "f16", "f32")
    return next(precision for precision in order if precision in used)


def _notes(variants: Sequence[PlannedVariant], model: Decoder | Multimodal) -> list[str]:
    notes: list[str] = []
    for variant in variants:
        notes += notes_of(variant.name, variant.format, model)
        if variant.approximate:
            notes.append(f"{variant.name} is approximate, not the same model: {variant.approximate}")
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
        decoder = text_of(model)
        own = {weight.name for weight in decoder.weights()}
        others = [weight for weight in model.weights() if weight.name not in own]
        notes += [note for note in variant.recipe.notes(decoder, others) if note not in notes]
    return notes
