"""`edge targets`: what can be converted for, and what a model would take there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli import complete, console

if TYPE_CHECKING:
    from edge.fitting.check import Fit, VariantFit
    from edge.targets import Target


def targets(
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Sizes and memory of a model on each target, and which phones hold it. A checkpoint "
            "directory, a name in models.lock or hf:owner/name, of which only config and headers are read.",
            autocompletion=complete.models,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", metavar="TARGET",
            help="With --fit: for this one instead of those of phones; repeat for several.",
            autocompletion=complete.targets,
        ),
    ] = None,
    precision: Annotated[
        Literal["int4", "int8", "f16", "bf16", "f32"] | None,
        typer.Option(help="With --fit: weight precision instead of the target's own."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --fit: context length instead of the target's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:  # fmt: skip
    """List the targets, or tell what a model fits.

    Add your own as a TOML file in the configuration directory, or as [targets.NAME] in ./edge.toml.
    """
    from edge.npu.socs import load_socs
    from edge.targets import load_targets

    known = load_targets()
    if fit is not None:
        from edge.fitting.check import fit as run
        from edge.planned import ConvertRequest

        progress = console.open_progress(quiet=as_json)
        names = tuple(target or _of_phones(known, precision))
        request = ConvertRequest(fit, names, precision=precision, context=context, proof=False)
        found = run(request, progress, asked=bool(target))
        progress.done()
        console.write_json(found.to_data()) if as_json else _write_fit(found)
        return
    for name, value in (("--target", target), ("--precision", precision), ("--context", context)):
        if value:
            raise typer.BadParameter(f"{name} says how a model is to fit: add --fit MODEL")
    socs = load_socs()
    if as_json:
        console.write_json(
            {
                "targets": [each.to_data() for _, each in sorted(known.items())],
                "socs": [soc.to_data() for soc in socs.values()],
            }
        )
        return
    for _, each in sorted(known.items()):
        console.write(f"{each.name}: {console.clean(each.title)}")
        console.write(f"  runtime    {each.runtime}, {each.format}")
        console.write(f"  precision  {each.precision} (of {', '.join(each.limits)})")
        console.write(f"  context    {each.context_length} tokens, memory up to {each.memory_mb} MiB")
        console.write(f"  proven on  {console.clean(each.proven)}")
    console.write()
    rows = [(s.name, s.title, f"v{s.htp_arch}", f"{', '.join(s.devices)} ({s.years})") for s in socs.values()]
    for line in console.table(("SoC, for --soc", "called", "HTP", "in"), rows):
        console.write(line)


def _of_phones(known: Mapping[str, Target], precision: str | None) -> list[str]:
    """Targets that a phone can be, and that take the precision, where one is asked for."""
    from edge.formats import FORMATS

    return [
        name
        for name, each in sorted(known.items())
        if FORMATS[each.format].phone and (precision is None or precision in each.limits)
    ]


def _write_fit(found: Fit) -> None:
    from edge.units import size

    decoder = found.plan.decoder
    console.write(
        f"{found.plan.source.source}: {decoder.architecture}, {decoder.parameters / 1e6:.1f} M parameters, "
        f"{size(found.plan.read_bytes)} of weights"
    )
    for each in found.variants:
        _write_variant(each)
    rows = []
    for i, first in enumerate(found.variants[0].phones):
        phone = first.phone
        fits = [each.phones[i] for each in found.variants]
        words = [f"{f.verdict}, {f.largest_context}" if f.largest_context else f.verdict for f in fits]
        rows.append((f"{phone.name} ({phone.year})", f"{phone.ram_gb} GB", size(phone.usable), *words))
    console.write()
    header = ("phone", "RAM", "for an app", *(each.variant.name for each in found.variants))
    for line in console.table(header, rows):
        console.write(line)
    console.write("the number: the longest context that still fits, in tokens")
    console.write("tight: once the system has dropped what it can of the file's pages, and reads them again")
    for note in found.plan.notes:
        console.write(f"note: {note}")


def _write_variant(each: VariantFit) -> None:
    from edge.units import size

    variant, memory = each.variant, each.variant.memory
    console.write()
    targets_of = ", ".join(target.name for target in variant.targets)
    console.write(f"{variant.name}, for {targets_of}, context {variant.context_length}")
    for path, nbytes in each.files.items():
        console.write(f"  {size(nbytes):>8}  {path}")
    parts = {
        "weights": memory.weights,
        "KV cache": memory.kv_cache,
        "workspace": memory.workspace,
        "engine": memory.runtime,
    }
    told = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in parts.items())
    console.write(f"  {size(memory.total):>8}  of memory at its peak: {told}")
    console.write(f"  {size(memory.file_backed):>8}  of it are pages of the file, which the system can drop")
    if each.on_phones != memory:
        console.write(f"  {size(each.on_phones.total):>8}  on a phone, whose kernels want more of it copied")
