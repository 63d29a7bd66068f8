"""`edge eval`: how far is an artifact from what it was made of?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli import complete, console

if TYPE_CHECKING:
    from edge.evaluation.result import Evaluation
    from edge.evaluation.run import TaskResult
    from edge.evaluation.statistics import Estimate


def eval(
    artifacts: Annotated[
        list[str],
        typer.Argument(metavar="ARTIFACT...", help="Bundles, GGUF files or genai folders."),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What to compare with: a checkpoint or its name in models.lock (evaluated in float32), or a "
            "GGUF file, genai folder or bundle (in its runtime).",
            autocompletion=complete.models,
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="UTF-8 text; can be repeated: a result for each.",
        ),
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens in a window; the second half is predicted.")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="At most so many windows of a text.")] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Questions with known answers: a set of edge (arithmetic, knowledge, reading) or a JSONL file "
            "(edge/tasks.py tells the format). Can be repeated.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="The engine's threads. Default: every core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Measure artifacts: perplexity, KL divergence, answers to tasks.

    Each figure comes with its standard error. The engine runs in a process of its own, with a float32 KV cache
    where it has the choice. The method is that of llama.cpp's llama-perplexity --kl-divergence.
    """
    from edge.evaluation.run import Request, run

    request = Request(
        tuple(artifacts), against, tuple(text or ()), tuple(tasks or ()), length, windows, threads
    )
    result = run(request, console.open_progress(quiet=as_json))
    if as_json:
        console.write_json(result.to_data())
        return
    blocks = [_text_lines([e for e in result.evaluations if e.text == str(file)]) for file in request.texts]
    names = dict.fromkeys(t.outcome.task.name for t in result.tasks)
    blocks += [_task_lines([t for t in result.tasks if t.outcome.task.name == name]) for name in names]
    for i, lines in enumerate(blocks):
        for line in [""] * bool(i) + lines:
            console.write(line)


def _text_lines(evaluations: list[Evaluation]) -> list[str]:
    first = evaluations[0]
    method = first.positions.windows
    begins = "without BOS" if method.bos is None else f"BOS (token {method.bos}) first in each"
    head = [
        f"{first.text}: {len(method.ids)} windows of {method.length} tokens, stride {method.length}, {begins};",
        f"positions {method.first} to {method.length - 2} are scored: {method.targets.size} predictions",
    ]
    if first.reference is not None:
        head.append(f"reference: {first.reference} ({first.reference_runtime})")
    # Columns as wide as names would leave the screen: from the third on they are numbers.
    names = [e.artifact for e in evaluations]
    labels = names if len(names) < 3 else [f"[{i}]" for i in range(1, len(names) + 1)]
    for label, e in zip(labels, evaluations, strict=True):
        head.append(f"{'' if label == e.artifact else label + ' '}{e.artifact}: {e.runtime}")
    rows = [["perplexity", *(_figure(e.perplexity) for e in evaluations)]]
    if first.reference is not None:
        rows += [
            ["reference's", *(_figure(e.reference_perplexity) for e in evaluations)],
            ["ln of their ratio", *(_figure(e.ln_ratio) for e in evaluations)],
            ["KL mean (nats)", *(_figure(e.kl_mean) for e in evaluations)],
            ["KL median", *(_figure(e.kl_median) for e in evaluations)],
            ["KL p99", *(_figure(e.kl_p99) for e in evaluations)],
            ["KL max", *(f"{e.kl_max:.4g}" for e in evaluations)],
            ["same top-1 (%)", *(_figure(e.top1, 100.0) for e in evaluations)],
        ]
    return head + console.table(["", *labels], rows)


def _task_lines(results: list[TaskResult]) -> list[str]:
    task = results[0].outcome.task
    header, rows = ["artifact", "right (%)"], []
    for result in results:
        rows.append([result.artifact, _figure(result.outcome.accuracy, 100.0)])
        if result.agreement:
            rows[-1].append(_figure(result.agreement, 100.0))
    first = results[0]
    if first.reference_outcome:
        header.append("as the reference (%)")
        rows.append([f"{first.reference} (reference)", _figure(first.reference_outcome.accuracy, 100.0), ""])
    return [f"{task.name}: {len(task.items)} items", *console.table(header, rows)]


_MOST_PLACES = 7


def _figure(estimate: Estimate | None, factor: float = 1.0) -> str:
    """The value and its standard error, to the second digit of the error."""
    from math import floor, log10

    if estimate is None:
        return ""
    value, error = estimate.value * factor, estimate.error * factor
    if error == 0:
        return f"{value:.4g} ± 0"
    places = max(0, 1 - floor(log10(error)))
    if places > _MOST_PLACES:
        return f"{value:.3g} ± {error:.2g}"
    return f"{value:.{places}f} ± {error:.{places}f}"
