"""`edge distill`: a checkpoint teaches a smaller one."""

from __future__ import annotations

from edge.cli import console
from edge.cli import distill_options as options
from edge.cli import distill_told as told


def distill(
    teacher: options.Teacher,
    text: options.Text,
    output: options.Output,
    method: options.Method = "ted",
    layers: options.Layers = None,
    hidden: options.Hidden = None,
    keep: options.Keep = None,
    student: options.Student = None,
    experts: options.Experts = 4,
    expert_size: options.ExpertSize = None,
    shared: options.Shared = None,
    routing: options.Routing = None,
    weight: options.Weight = None,
    steps: options.Steps = 500,
    filter_steps: options.FilterSteps = None,
    seed: options.Seed = 0,
    batch: options.Batch = 8,
    length: options.Length = None,
    rate: options.Rate = None,
    kl: options.Kl = None,
    hidden_weight: options.HiddenWeight = None,
    transfer: options.Transfer = 0,
    heads: options.Heads = None,
    perturbation: options.Perturbation = None,
    consistency: options.Consistency = None,
    consistency_target: options.ConsistencyTarget = None,
    optimizer: options.Optimizer = "adamw",
    mup: options.Mup = 0,
    save_every: options.SaveEvery = 100,
    bf16: options.Bf16 = False,
    device: options.Device = "cpu",
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
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
        told.parts(parts, dry_run=dry_run, as_json=as_json)
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
        told.mixture(mixture, dry_run=dry_run, as_json=as_json)
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
        console.write_json(plan.to_data() | {"memory": plan.memory}) if as_json else told.write_plan(plan)
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
