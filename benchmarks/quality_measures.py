"""What benchmarks/quality.py measures of one artifact: predictions on a text, answers to a task."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Made
from edge import tasks
from edge.evaluate import CheckpointReference, evaluate
from edge.evaluation.engine import Engine

MEASURES = ("kl_mean", "kl_median", "kl_p99", "perplexity", "reference_perplexity", "top1")
TASK_CONTEXT = 1024


def on_text(
    made: Made, reference: CheckpointReference, text: str, windows: int, threads: int
) -> dict[str, Any]:
    """Teacher-forced over the text's first `windows`: every measure as [value, standard error]."""
    data = evaluate(made.path, reference, text, windows=windows, threads=threads).to_data()
    return {name: [data[name]["value"], data[name]["error"]] for name in MEASURES}


def on_task(made: Made, name: str, threads: int) -> dict[str, Any]:
    """Share of right answers to a shipped set, as [value, standard error]."""
    with Engine(made.path, name=made.path.name, task_context=TASK_CONTEXT, threads=threads) as engine:
        accuracy = tasks.run(tasks.load(name), engine.item, lambda _: None).accuracy
    return {"accuracy": [accuracy.value, accuracy.error]}
