"""`edge eval`: several artifacts, texts and tasks against one reference, which is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge import tasks
from edge.chat.locate import Chosen
from edge.evaluate import shared_windows
from edge.evaluation.comparison import compare
from edge.evaluation.engine import Engine
from edge.evaluation.reference import ArtifactReference, CheckpointReference, Reference
from edge.evaluation.result import Evaluation
from edge.evaluation.statistics import Estimate
from edge.evaluation.subjects import artifacts, reference_artifact
from edge.evaluation.windows import LENGTH, read_text
from edge.progress import Progress
from edge.sources import resolve

TASK_CONTEXT = 1024
"""Tokens of context for a task's prompt and answer."""


@dataclass(frozen=True)
class Request:
    """What was asked. artifacts: bundles (each of their variants), .gguf files, genai folders."""

    artifacts: tuple[str, ...]
    against: str | None = None
    texts: tuple[Path, ...] = ()
    tasks: tuple[str, ...] = ()
    length: int = LENGTH
    windows: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class TaskResult:
    """One artifact on one task; `reference_outcome` where the reference is an artifact too."""

    artifact: str
    outcome: tasks.Outcome
    reference: str | None
    reference_outcome: tasks.Outcome | None

    @property
    def agreement(self) -> Estimate | None:
        """How often it said what the reference said."""
        other = self.reference_outcome
        return None if other is None else self.outcome.agreement(other)

    def to_data(self) -> dict[str, Any]:
        items = zip(self.outcome.task.items, self.outcome.given, self.outcome.right, strict=True)
        agreement, other = self.agreement, self.reference_outcome
        return {
            "artifact": self.artifact,
            "task": self.outcome.task.name,
            "accuracy": self.outcome.accuracy.to_data(),
            "reference": self.reference,
            "reference_accuracy": other and other.accuracy.to_data(),
            "agreement": agreement and agreement.to_data(),
            "items": [
                {"prompt": item.prompt, "given": given, "right": right} for item, given, right in items
            ],
        }


@dataclass(frozen=True)
class Result:
    """Ordered by text or task, then artifact."""

    evaluations: tuple[Evaluation, ...]
    tasks: tuple[TaskResult, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            "evaluations": [e.to_data() for e in self.evaluations],
            "tasks": [t.to_data() for t in self.tasks],
        }


def run(request: Request, progress: Progress) -> Result:
    """Files and tasks are read before anything is computed. Raises as `edge.evaluate.evaluate` does, and
    UnsupportedError when there is nothing to evaluate on, or a text or task file is broken."""
    if not request.texts and not request.tasks:
        raise UnsupportedError(
            "there is nothing to evaluate on",
            hint=f"--text FILE, or --tasks NAME with one of {', '.join(tasks.shipped())}",
        )
    chosen = [artifact for word in request.artifacts for artifact in artifacts(word)]
    texts = {str(file): read_text(file) for file in request.texts}
    questions = [tasks.load(name) for name in request.tasks]
    evaluations: list[Evaluation] = []
    answers: list[TaskResult] = []
    with ExitStack() as stack:
        reference = _reference(request, stack, progress)
        known = _outcomes(reference, questions, progress)
        for artifact in chosen:
            with _engine(artifact, request) as engine:
                evaluations += _texts(engine, reference, texts, request, progress)
                for task, outcome in zip(questions, _outcomes_of(engine, questions, progress), strict=True):
                    name = reference.name if reference else None
                    answers.append(TaskResult(engine.name, outcome, name, known.get(task.name)))
    progress.done()
    order = [*texts, *(task.name for task in questions)]
    return Result(
        tuple(sorted(evaluations, key=lambda e: order.index(e.text))),
        tuple(sorted(answers, key=lambda a: order.index(a.outcome.task.name))),
    )


def _engine(artifact: Chosen, request: Request) -> Engine:
    return Engine(
        artifact.path,
        name=artifact.label,
        length=request.length if request.texts else 0,
        task_context=TASK_CONTEXT if request.tasks else 0,
        threads=request.threads,
    )


def _reference(request: Request, stack: ExitStack, progress: Progress) -> Reference | None:
    if request.against is None:
        return None
    artifact = reference_artifact(request.against)
    if artifact is not None:
        return ArtifactReference(stack.enter_context(_engine(artifact, request)))
    source = resolve(request.against, progress=progress)
    checkpoint = stack.enter_context(Checkpoint.open(source.directory))
    return CheckpointReference(checkpoint, name=source.name)


def _texts(
    engine: Engine, reference: Reference | None, texts: dict[str, str], request: Request, progress: Progress
) -> list[Evaluation]:
    windows = {
        name: shared_windows(engine, reference, text, name, request.length, request.windows, progress)
        for name, text in texts.items()
    }
    if reference is not None:
        reference.prepare(list(windows.values()), progress)
    return [compare(engine, reference, w, text=name, progress=progress) for name, w in windows.items()]


def _outcomes(
    reference: Reference | None, questions: Sequence[tasks.Task], progress: Progress
) -> dict[str, tasks.Outcome]:
    """The reference's own answers by task name; none of a checkpoint, which has no runtime to generate in."""
    if not isinstance(reference, ArtifactReference):
        return {}
    return {o.task.name: o for o in _outcomes_of(reference.engine, questions, progress)}


def _outcomes_of(engine: Engine, questions: Sequence[tasks.Task], progress: Progress) -> list[tasks.Outcome]:
    found = []
    for task in questions:
        progress.stage(f"{engine.name}: {task.name}", len(task.items), "items")
        found.append(tasks.run(task, engine.item, progress.advance))
    return found
