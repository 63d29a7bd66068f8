"""`edge distill`: a checkpoint teaches a smaller one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli import complete, console

if TYPE_CHECKING:
    from edge.distilling.moe import MoeRequest
    from edge.distilling.moebert_plan import MoebertRequest
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
        Literal["ted", "lwd", "kd", "ft", "camero", "moe", "moebert"],
        typer.Option(
            help="Filtered hidden states, raw ones, the teacher's answers, the text alone; several heads "
            "that agree (encoders); or experts: copies of each MLP, or parts of it."
        ),
    ] = "ted",
    layers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Layers of the student, of the teacher's.")
    ] = None,
    hidden: Annotated[int | None, typer.Option(min=1, metavar="H", help="Width of the student.")] = None,
    keep: Annotated[
        Literal["ends", "even"] | None,
        typer.Option(
            help="Which layers: a third from the front and the rest from the back, or evenly spaced. "
            "[default: ends; encoders: even]"
        ),
    ] = None,
    student: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A student of its own instead of a cut teacher.")
    ] = None,
    experts: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="N",
            help="moe: copies of each MLP, two for every token. moebert: parts, one for each.",
        ),
    ] = 4,
    expert_size: Annotated[
        int | None, typer.Option(min=2, metavar="D", help="moebert: neurons of each. [default: a quarter]")
    ] = None,
    shared: Annotated[
        int | None,
        typer.Option(min=0, metavar="S", help="moebert: neurons that all begin with. [default: a sixth]"),
    ] = None,
    routing: Annotated[
        Literal["hash", "hash-balance"] | None,
        typer.Option(help="moebert: token ids at random, or as often in the text. [default: hash]"),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(min=0, metavar="L", help="moebert: weight of the teacher, lambda. [default: 1]"),
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
    transfer: Annotated[
        int,
        typer.Option(
            min=0, metavar="R", help="Train a LoRA of rank R, begun with the teacher's pieces (--student)."
        ),
    ] = 0,
    heads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="camero: heads, averaged at the end. [default: 4]")
    ] = None,
    perturbation: Annotated[
        Literal["dropout", "r3f"] | None,
        typer.Option(
            help="camero: what tells heads apart; r3f is noise on the embeddings. [default: dropout]"
        ),
    ] = None,
    consistency: Annotated[
        float | None,
        typer.Option(min=0, metavar="A", help="camero: weight of the heads' agreement. [default: 1]"),
    ] = None,
    consistency_target: Annotated[
        Literal["ensemble", "pairwise"] | None,
        typer.Option(help="camero: a head agrees with the mean, or with the next. [default: ensemble]"),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "cosmos"], typer.Option(help="cosmos keeps about three fifths of adamw's state.")
    ] = "adamw",
    mup: Annotated[
        int,
        typer.Option(
            min=0, metavar="WIDTH", help="Hidden size that --rate was found at; matrices' rates are scaled."
        ),
    ] = 0,
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
    command goes on where it was. `accelerate launch -m edge distill ..` shares each batch among its processes.
    """
    own = {"--expert-size": expert_size, "--shared": shared, "--routing": routing, "--weight": weight}
    # What neither mixture of experts takes.
    others = {
        "--layers": layers,
        "--hidden": hidden,
        "--keep": keep,
        "--student": student,
        "--filter-steps": filter_steps,
        "--kl": kl,
        "--hidden-weight": hidden_weight,
        "--transfer": transfer or None,
        "--optimizer": None if optimizer == "adamw" else optimizer,
        "--mup": mup or None,
        "--heads": heads,
        "--perturbation": perturbation,
        "--consistency": consistency,
        "--consistency-target": consistency_target,
    }
    if method == "moebert":
        from edge.distilling import moebert_plan as moebert

        moebert.refuse_unused(others)
        parts = moebert.MoebertRequest(
            teacher=teacher,
            text=text,
            output=output,
            experts=experts,
            expert_size=expert_size,
            shared=shared,
            routing=routing or "hash",
            weight=1.0 if weight is None else weight,
            steps=steps,
            seed=seed,
            batch=batch,
            length=length,
            rate=rate,
            save_every=save_every,
            bf16=bf16,
            device=device,
        )
        _distill_moebert(parts, dry_run=dry_run, as_json=as_json)
        return
    if any(value is not None for value in own.values()):
        from edge.distilling.moebert_plan import refuse_own

        refuse_own(method, own)
    if method == "moe":
        from edge.distilling import moe

        moe.refuse_unused(others | {"--device": None if device == "cpu" else device})
        mixture = moe.MoeRequest(
            teacher=teacher,
            text=text,
            output=output,
            experts=experts,
            steps=steps,
            seed=seed,
            batch=batch,
            length=length or moe.LENGTH,
            rate=moe.RATE if rate is None else rate,
            save_every=save_every,
            bf16=bf16,
        )
        _distill_moe(mixture, dry_run=dry_run, as_json=as_json)
        return
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
        keep=keep,
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
        transfer=transfer,
        optimizer=optimizer,
        mup=mup,
        heads=heads,
        perturbation=perturbation,
        consistency=consistency,
        consistency_target=consistency_target,
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


def _distill_moe(request: MoeRequest, *, dry_run: bool, as_json: bool) -> None:
    from edge.distilling import moe

    progress = console.open_progress(quiet=as_json)
    plan = moe.plan(request, progress)
    if not dry_run:
        record = moe.distill(plan, progress)
    progress.done()
    if as_json:
        console.write_json(plan.to_data() | {"memory": plan.memory} if dry_run else record)
        return
    console.write(
        f"{request.output}: {plan.student_parameters / 1e6:.1f} M parameters in {request.experts} experts a layer, "
        f"of {plan.teacher_parameters / 1e6:.1f} M dense ones"
    )
    console.write(
        f"memory: about {console.size(plan.memory)}"
        if dry_run
        else f"next: edge convert {request.output} --target cpu"
    )


def _distill_moebert(request: MoebertRequest, *, dry_run: bool, as_json: bool) -> None:
    from edge.distilling.moebert import distill
    from edge.distilling.moebert_plan import plan as make_plan

    progress = console.open_progress(quiet=as_json)
    plan = make_plan(request, progress)
    if not dry_run:
        record = distill(plan, progress)
    progress.done()
    if as_json:
        console.write_json(plan.to_data() | {"memory": plan.memory} if dry_run else record)
        return
    console.write(
        f"{request.output}: {plan.student_parameters / 1e6:.1f} M parameters, {plan.active_parameters / 1e6:.1f} M for "
        f"each token, of {plan.teacher_parameters / 1e6:.1f} M"
    )
    split = plan.split
    console.write(
        f"{split.experts} experts of {split.size} neurons, {split.shared} of them shared; {split.kept} of {plan.inner} "
        "neurons are in one"
    )
    if dry_run:
        console.write(f"memory: about {console.size(plan.memory)}")
    else:
        console.write(f"next: edge convert {request.output} --target cpu")


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
