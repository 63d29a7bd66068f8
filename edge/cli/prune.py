"""`edge prune`: a checkpoint becomes a smaller or a sparser one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edge.cli import complete, console


def _share(what: str) -> Any:
    return typer.Option(metavar="SHARE", help=what)


def prune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint directory, .gguf file, a name in models.lock, or hf:owner/name.",
            autocompletion=complete.models,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the new checkpoint goes.")
    ],
    method: Annotated[
        Literal["platon", "losparse"],
        typer.Option(help="PLATON: units or single weights. LoSparse: thin factors and some rows."),
    ] = "platon",
    keep: Annotated[
        float | None,
        _share("Share of the single weights that stays, the others become zeros; of LoSparse: of the rows."),
    ] = None,
    low_rank: Annotated[
        float | None, _share("LoSparse: the factors' share of the values of a matrix.")
    ] = None,
    layers: Annotated[float | None, _share("Share of the layers that stays.")] = None,
    groups: Annotated[
        float | None, _share("Share of the key-value heads, with the query heads that read them.")
    ] = None,
    heads: Annotated[float | None, _share("Share of the query heads of each key-value head.")] = None,
    neurons: Annotated[float | None, _share("Share of the neurons of each MLP.")] = None,
    score: Annotated[
        Literal["platon", "sensitivity", "magnitude"],
        typer.Option(help="By what weights or units stay; the last two are what PLATON is compared with."),
    ] = "platon",
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text to train on. [default: the one that ships]"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps.")] = 1000,
    warmup: Annotated[float, _share("Share of the steps before pruning begins.")] = 0.1,
    settle: Annotated[float, _share("Share of the steps after it has ended.")] = 0.3,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Windows a step.")] = 4,
    length: Annotated[int, typer.Option(min=8, metavar="N", help="Tokens a window.")] = 256,
    rate: Annotated[float, typer.Option(metavar="RATE", help="AdamW's learning rate.")] = 5e-5,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the order of windows.")] = 0,
    beta1: Annotated[float, typer.Option(metavar="B", help="Smoothing of the sensitivity.")] = 0.85,
    beta2: Annotated[float, typer.Option(metavar="B", help="Smoothing of its uncertainty.")] = 0.95,
    window: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps from one choice of weights to the next.")
    ] = 10,
    bf16: Annotated[bool, typer.Option("--bf16", help="Multiply matrices in bfloat16.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="shrink.json on stdout.")] = False,
) -> None:
    """Prune a checkpoint while it trains (PLATON, LoSparse).

    Units make a smaller model, which `edge convert` takes; single weights become zeros, which make no engine faster;
    factors (--method losparse) are for the target cpu. Ctrl-C loses nothing: the same command goes on.
    """
    from edge.prune import PruneRequest
    from edge.prune import prune as run
    from quant.prune.settings import Settings

    asked = {"layers": layers, "groups": groups, "heads": heads, "neurons": neurons}
    settings = Settings(
        keep=keep,
        units={unit: share for unit, share in asked.items() if share is not None},
        steps=steps,
        warmup=warmup,
        settle=settle,
        batch=batch,
        length=length,
        rate=rate,
        seed=seed,
        beta1=beta1,
        beta2=beta2,
        window=window,
        bf16=bf16,
        method=method,
        low_rank=low_rank,
        score=score,
    )
    shrink = run(PruneRequest(model, output, settings, text), console.open_progress(quiet=as_json))
    if as_json:
        console.write_json(shrink)
        return
    result = shrink["result"]
    console.write(f"{output}: {result['parameters_after']:,} of {result['parameters_before']:,} parameters")
    console.write(f"zeros in the layers' matrices: {result['zeros']:,}")
    console.write(
        f"loss on held-out text: {result['loss_after']:.3f}, before {result['loss_before']:.3f} nats a token"
    )
