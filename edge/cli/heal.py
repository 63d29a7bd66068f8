"""`edge heal`: an adapter makes up for what quantization loses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.cli import complete, console


def heal(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint directory, .gguf file, a name in models.lock, or hf:owner/name.",
            autocompletion=complete.models,
        ),
    ],
    method: Annotated[
        Literal["loftq", "adalora"],
        typer.Option(
            help="loftq: the best correction of the rounding; adalora: ranks where they matter most."
        ),
    ] = "loftq",
    target: Annotated[
        str,
        typer.Option(
            "--target", "-t", metavar="TARGET", help="Whose quantizer.", autocompletion=complete.targets
        ),
    ] = "cpu",
    precision: Annotated[
        Literal["int4", "int8", "f16", "bf16", "f32"] | None,
        typer.Option(help="Weight precision instead of the target's own."),
    ] = None,
    rank: Annotated[
        int, typer.Option(min=1, metavar="R", help="Rank of a correction; adalora: on average.")
    ] = 16,
    iterations: Annotated[
        int, typer.Option(min=1, metavar="T", help="loftq: rounds; 1 leaves the weights as they are.")
    ] = 5,
    steps: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Training steps. [default: 0 for loftq, 200 for adalora]"),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.0, metavar="R", help="Learning rate.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Windows of 512 tokens a step.")] = 2,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the order of the text, and of AdaLoRA's start.")
    ] = 0,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Learn from this model instead of MODEL before rounding."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Train on this text instead of the one that ships.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder. [default: healed/NAME-METHOD]"),
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between states to go on from.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Make an adapter that wins back what quantization loses.

    DIR becomes a checkpoint with the adapter in DIR/adapter. Convert both together, without --calibrate:
    `edge convert DIR --adapter healed=DIR/adapter -t cpu`. Training needs torch, transformers and peft;
    stopped, by Ctrl-C too, the same command goes on where it was.
    """
    from edge.heal import DEFAULT_STEPS, HealRequest
    from edge.heal import heal as run

    progress = console.open_progress(quiet=as_json)
    report = run(
        HealRequest(
            model=model,
            method=method,
            target=target,
            precision=precision,
            rank=rank,
            iterations=iterations,
            steps=DEFAULT_STEPS[method] if steps is None else steps,
            rate=rate,
            batch=batch,
            seed=seed,
            teacher=teacher,
            text=text,
            output=output,
            save_every=save_every,
        ),
        progress,
    )
    if as_json:
        console.write_json(report.to_data())
        return
    console.write(f"{report.output}: a checkpoint, and its adapter in {report.adapter}")
    for name, value in report.shrink["kl"].items():
        console.write(f"  {name}: KL {value:.3g} nats a token to the teacher")
    console.write(f"next: edge convert {report.output} --adapter healed={report.adapter} -t {target}")
