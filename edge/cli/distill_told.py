"""What `edge distill` says of a plan and of what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cli import console

if TYPE_CHECKING:
    from edge.distilling.moe import MoeRequest
    from edge.distilling.moebert_plan import MoebertRequest
    from edge.distilling.plan import DistillPlan


def mixture(request: MoeRequest, *, dry_run: bool, as_json: bool) -> None:
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


def parts(request: MoebertRequest, *, dry_run: bool, as_json: bool) -> None:
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


def write_plan(plan: DistillPlan) -> None:
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
