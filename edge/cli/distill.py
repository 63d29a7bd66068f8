"""`edge distill`: a checkpoint teaches a smaller one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli import complete, console

if TYPE_CHECKING:
    from edge.distilling.plan import DistillPlan


def distill(
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help="Checkpoint directory or a name in models.lock: a Phi-3-layout decoder, or an encoder "
            "with its classification head.",
            autocompletion=complete.models,
        ),
    ],
    text: Annotated[
        Path,
        typer.Option(metavar="FILE", help='Text; for an encoder one {"text": .., "label": ..} a line.'),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The student's directory.")],
    method: Annotated[
        Literal["ted", "lwd", "kd", "ft"],
        typer.Option(help="Filtered hidden states, raw ones, the teacher's answers, or the text alone."),
    ] = "ted",
    layers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Layers of the student, evenly spaced teacher's.")
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, metavar="H", help="Width of the student (decoders).")
    ] = None,
    student: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A student of its own instead of a cut teacher.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="S", help="Steps of training.")] = 500,
    filter_steps: Annotated[
        int | None, typer.Option(min=1, metavar="S", help="Steps of TED's first stage. [default: a quarter]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="X", help="Order of the text and new weights.")] = 0,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Examples a step.")] = 8,
    length: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Tokens an example. [default: 256, encoders 128]"),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0, metavar="R", help="Peak learning rate. [default: 3e-4, encoders 5e-5]"),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(min=0, metavar="A", help="Weight of the answers. [default: 1, encoders 20]"),
    ] = None,
    hidden_weight: Annotated[
        float | None, typer.Option(min=0, metavar="A", help="Weight of the hidden states.")
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between states to go on from.")
    ] = 100,
    bf16: Annotated[bool, typer.Option("--bf16", help="Matrix products in bfloat16.")] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes and memory; train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Teach a smaller student; the result is a checkpoint.

    The student begins as a part of its teacher, learns from it over a text, and is written as a Hugging Face
    directory for `edge convert`, with a shrink.json that says how it was made. Stopped, by Ctrl-C too, the same
    command goes on where it was.
    """
    from edge.distill import distill as run
    from edge.distilling.plan import DistillRequest
    from edge.distilling.plan import plan as make_plan

    progress = console.open_progress(quiet=as_json)
    request = DistillRequest(
        teacher=teacher,
        text=text,
        output=output,
        method=method,
        layers=layers,
        hidden=hidden,
        student=student,
        steps=steps,
        seed=seed,
        batch=batch,
        length=length,
        rate=rate,
        kl=kl,
        hidden_weight=hidden_weight,
        filter_steps=filter_steps,
        save_every=save_every,
        bf16=bf16,
        device=device,
    )
    plan = make_plan(request, progress)
    if dry_run:
        progress.done()
        console.write_json(plan.to_data() | {"memory": plan.memory}) if as_json else _write_plan(plan)
        return
    record = run(plan, progress)
    progress.done()
    if as_json:
        console.write_json(record)
        return
    console.write(
        f"{output}: {plan.student_parameters / 1e6:.1f} M parameters of {plan.teacher_parameters / 1e6:.1f} M"
    )
    console.write(f"next: edge convert {output} --target cpu")


def _write_plan(plan: DistillPlan) -> None:
    s = plan.settings
    console.write(
        f"{plan.source}: {plan.teacher_parameters / 1e6:.1f} M parameters; "
        f"the student: {plan.student_parameters / 1e6:.1f} M"
    )
    if plan.cut:
        console.write(f"begins as layers {', '.join(map(str, plan.cut.layers))}")
    console.write(f"is compared with layers {', '.join(map(str, plan.answers))}")
    console.write(
        f"{len(plan.ids)} examples; {s['steps']} steps of {s['batch']}"
        + (f" after {s['filter_steps']} for each of the filters" if s["filter_steps"] else "")
    )
    console.write(f"memory: about {console.size(plan.memory)}")
