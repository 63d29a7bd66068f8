"""`edge convert`: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli import complete, console

if TYPE_CHECKING:
    from edge.calibration_cost import CalibrationPlan
    from edge.convert import ConvertRequest, Plan, Report
    from edge.progress import Progress
    from edge.sources import Resolved


def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Checkpoint directory, .gguf file, a name in models.lock, or hf:owner/name.",
            autocompletion=complete.models,
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            "-t",
            metavar="TARGET",
            help="Target; repeat for several.",
            autocompletion=complete.targets,
        ),
    ],
    precision: Annotated[
        Literal["int4", "int8", "f16", "bf16", "f32"] | None,
        typer.Option(help="Weight precision instead of the target's own."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Context length in tokens instead of the target's own."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Bundle directory. [default: bundles/NAME-TARGET]"
        ),
    ] = None,
    no_proof: Annotated[bool, typer.Option("--no-proof", help="Publish without a proof.")] = False,
    allow_unproven: Annotated[
        bool,
        typer.Option("--allow-unproven", help="Publish even when the proof fails; the manifest says so."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show sizes and memory; convert nothing.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads. [default: every core, at most 8]")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML or JSON file: how each weight is stored.")
    ] = None,
    bits_per_weight: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Mean bits a weight: spent where they lower the error most."),
    ] = None,
    size_mb: Annotated[
        float | None,
        typer.Option(metavar="MB", help="Largest artifact: as --bits-per-weight, to a size."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="[FILE]",
            help="Choose int4 codes by what they do to a text; without FILE the text that ships.",
        ),
    ] = None,
    spill: Annotated[
        bool, typer.Option("--spill", help="Keep the calibration's activations on disk, not in memory.")
    ] = False,
    activations: Annotated[
        Literal["f16", "u16"],
        typer.Option(help="What an NPU computes with between the weights; u16 measures ranges over a text."),
    ] = "f16",
    soc: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOC[,SOC]", help="Compile an NPU target for these SoCs; `edge targets` lists them."
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR", help="A PEFT LoRA adapter to switch on at run time; repeat for several."
        ),
    ] = None,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Let nodes that an NPU does not take run on the CPU.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail if `edge lock` would change the lock.")
    ] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Take the lock as it is; ask no source.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Convert a checkpoint for one or more targets, with a proof.

    Every tensor is read once, whatever the number of targets. The proof compares the result, run in its own
    engine, with the checkpoint; when it fails, nothing is published and the exit code is 3.
    """
    from edge.convert import ConvertRequest
    from edge.convert import convert as run
    from edge.encoder.exporters import is_encoder
    from edge.plan import find
    from edge.plan import plan as make_plan

    progress = console.open_progress(quiet=as_json)
    request = ConvertRequest(
        checkpoint=checkpoint,
        targets=tuple(target),
        precision=precision,
        context=context,
        output=output,
        proof=not no_proof,
        allow_unproven=allow_unproven,
        threads=threads,
        recipe=recipe,
        calibrate=calibrate == "default" or (Path(calibrate) if calibrate else False),
        spill=spill,
        bits_per_weight=bits_per_weight,
        size_mb=size_mb,
        activations=activations,
        socs=tuple(name.strip() for word in soc or () for name in word.split(",") if name.strip()),
        adapters=tuple(adapter or ()),
        allow_cpu=allow_cpu,
        locked=locked,
        frozen=frozen,
    )
    with find(request, progress, dry_run=dry_run) as source:
        if is_encoder(source.directory):
            _convert_encoder(request, source, progress, dry_run=dry_run, as_json=as_json)
            return
        plan = make_plan(request, progress, source=source)
    if dry_run:
        progress.done()
        console.write_json(plan.to_data()) if as_json else _write_plan(plan)
        return
    if plan.calibration:
        progress.note(_calibration_line(plan.calibration))
    report = run(plan, progress)
    progress.done()
    console.write_json(report.to_data()) if as_json else _write_report(report)


def _convert_encoder(
    request: ConvertRequest, source: Resolved, progress: Progress, *, dry_run: bool, as_json: bool
) -> None:
    from edge.encoder.convert import convert as run
    from edge.encoder.plan import plan as make_plan

    plan = make_plan(request, source)
    if dry_run:
        progress.done()
        if as_json:
            console.write_json(plan.to_data())
            return
        console.write(
            f"{source.source}: {plan.model_type} encoder, {plan.sizes['parameters'] / 1e6:.1f} M parameters"
        )
        console.write(f"labels: {', '.join(plan.labels)}" if plan.labels else "no labels: gives vectors")
        console.write(f"would write {plan.output}: {' and '.join(plan.precisions)}")
        return
    report = run(plan, progress)
    if as_json:
        console.write_json(report)
        return
    for name, entry in report["manifest"]["files"].items():
        if name.endswith(".onnx"):
            console.say(f"{name}: {console.size(entry['size'])}")
    for line in console.proof_lines(report["proof"]):
        console.say(line)
    console.write(report["output"])


def _write_plan(plan: Plan) -> None:
    console.write(
        f"{plan.source.source}: {plan.decoder.architecture}, {plan.decoder.parameters / 1e6:.1f} M parameters, "
        f"{console.size(plan.read_bytes)} to read"
    )
    rows = [
        (
            v.relative_path,
            ", ".join(t.name for t in v.targets),
            console.size(v.disk_bytes),
            console.size(v.device_bytes),
            str(v.context_length),
        )
        for v in plan.variants
    ]
    for line in console.table(("variant", "target", "size", "memory on device", "context"), rows):
        console.write(line)
    if plan.calibration:
        console.write(_calibration_line(plan.calibration))
    console.write(f"peak memory of the conversion: about {console.size(plan.memory_bytes)}")
    console.write(f"would write {plan.output}")
    for note in plan.notes:
        console.write(f"note: {note}")


def _calibration_line(calibration: CalibrationPlan) -> str:
    windows, length = calibration.text.windows.shape
    return (
        f"calibration on {windows} x {length} tokens of {calibration.text.name}: "
        f"about {console.duration(calibration.seconds)}, {console.size(calibration.memory_bytes)} of memory, "
        f"{console.size(calibration.disk_bytes)} of disk in the cache"
    )


def _write_report(report: Report) -> None:
    for variant in report.variants:
        console.say(
            f"{variant['name']}: {console.size(variant['disk_bytes'])}, context {variant['context_length']}, "
            f"for {', '.join(variant['targets'])}"
        )
    console.say(
        f"read {console.size(report.read_bytes)} in {console.duration(report.seconds)} "
        f"({report.to_data()['mb_per_second']:.0f} MB/s), peak memory {console.size(report.peak_memory_bytes)}"
    )
    for line in console.proof_lines(report.proof):
        console.say(line)
    console.write(str(report.output))
