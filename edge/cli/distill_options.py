"""The options of `edge distill`, each a type that typer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edge.cli import complete

Teacher = Annotated[
    str,
    typer.Argument(
        metavar="TEACHER",
        help="Checkpoint directory or a name in models.lock: a Phi-3-layout decoder, or an encoder "
        "with its classification head.",
        autocompletion=complete.models,
    ),
]
Text = Annotated[
    Path,
    typer.Option(metavar="FILE", help='Text; for an encoder one {"text": .., "label": ..} a line.'),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The student's directory.")]
Method = Annotated[
    Literal["ted", "lwd", "kd", "ft", "camero", "moe", "moebert"],
    typer.Option(
        help="Filtered hidden states, raw ones, the teacher's answers, the text alone; several heads "
        "that agree (encoders); or experts: copies of each MLP, or parts of it."
    ),
]
Layers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Layers of the student, of the teacher's.")
]
Hidden = Annotated[int | None, typer.Option(min=1, metavar="H", help="Width of the student.")]
Keep = Annotated[
    Literal["ends", "even"] | None,
    typer.Option(
        help="Which layers: a third from the front and the rest from the back, or evenly spaced. "
        "[default: ends; encoders: even]"
    ),
]
Student = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A student of its own instead of a cut teacher.")
]
Experts = Annotated[
    int,
    typer.Option(
        min=2,
        metavar="N",
        help="moe: copies of each MLP, two for every token. moebert: parts, one for each.",
    ),
]
ExpertSize = Annotated[
    int | None, typer.Option(min=2, metavar="D", help="moebert: neurons of each. [default: a quarter]")
]
Shared = Annotated[
    int | None,
    typer.Option(min=0, metavar="S", help="moebert: neurons that all begin with. [default: a sixth]"),
]
Routing = Annotated[
    Literal["hash", "hash-balance"] | None,
    typer.Option(help="moebert: token ids at random, or as often in the text. [default: hash]"),
]
Weight = Annotated[
    float | None,
    typer.Option(min=0, metavar="L", help="moebert: weight of the teacher, lambda. [default: 1]"),
]
Steps = Annotated[int, typer.Option(min=1, metavar="S", help="Steps of training.")]
FilterSteps = Annotated[
    int | None, typer.Option(min=1, metavar="S", help="Steps of TED's first stage. [default: a quarter]")
]
Seed = Annotated[int, typer.Option(min=0, metavar="X", help="Order of the text and new weights.")]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Examples a step.")]
Length = Annotated[
    int | None,
    typer.Option(min=2, metavar="N", help="Tokens an example. [default: 256, encoders 128]"),
]
Rate = Annotated[
    float | None,
    typer.Option(min=0, metavar="R", help="Peak learning rate. [default: 3e-4, encoders 5e-5]"),
]
Kl = Annotated[
    float | None,
    typer.Option(min=0, metavar="A", help="Weight of the answers. [default: 1, encoders 20]"),
]
HiddenWeight = Annotated[float | None, typer.Option(min=0, metavar="A", help="Weight of the hidden states.")]
Transfer = Annotated[
    int,
    typer.Option(
        min=0, metavar="R", help="Train a LoRA of rank R, begun with the teacher's pieces (--student)."
    ),
]
Heads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="camero: heads, averaged at the end. [default: 4]")
]
Perturbation = Annotated[
    Literal["dropout", "r3f"] | None,
    typer.Option(help="camero: what tells heads apart; r3f is noise on the embeddings. [default: dropout]"),
]
Consistency = Annotated[
    float | None,
    typer.Option(min=0, metavar="A", help="camero: weight of the heads' agreement. [default: 1]"),
]
ConsistencyTarget = Annotated[
    Literal["ensemble", "pairwise"] | None,
    typer.Option(help="camero: a head agrees with the mean, or with the next. [default: ensemble]"),
]
Optimizer = Annotated[
    Literal["adamw", "cosmos"], typer.Option(help="cosmos keeps about three fifths of adamw's state.")
]
Mup = Annotated[
    int,
    typer.Option(
        min=0, metavar="WIDTH", help="Hidden size that --rate was found at; matrices' rates are scaled."
    ),
]
SaveEvery = Annotated[int, typer.Option(min=1, metavar="N", help="Steps between states to go on from.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Matrix products in bfloat16.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show sizes and memory; train nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")]
