"""`edge report`: what a bundle is, what making it cost, and how fast it runs, on one page.

`gather` measures, `edge.reporting.page.render` draws. Without a checkpoint nothing is run: the page shows what the
files and the manifest say, and tells how to get the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe_whole
from converters.multimodal import Multimodal, text_of
from converters.rooms import ROOMS, described
from edge import benchmark, runtimes
from edge.benchmark import Contender
from edge.bundle import Bundle, Variant, load, refuse_encoder
from edge.evaluate import CheckpointReference, Evaluation, evaluate
from edge.evaluation.windows import LENGTH, read_text
from edge.progress import Progress
from edge.proof import TEXT, proof_tokens
from edge.proving.references import source_of
from edge.reporting import speed
from edge.reporting.claims import facts, provenance, read_proofs
from edge.reporting.errors import Artifact, Errors, errors
from edge.reporting.findings import Findings, VariantFindings
from edge.reporting.sizes import Sizes, artifact_sizes, checkpoint_sizes
from edge.reporting.speed import Speed
from edge.reporting.storages import has_columns, storage_bits
from edge.sources import resolve
from quant.recipe import Recipe

WINDOWS = 8
"""Of a text, when no other number is asked for: 2040 predictions."""


@dataclass(frozen=True)
class Request:
    """What to report. against: a checkpoint or its name in models.lock. text: what to predict, None for the text of
    the proof. bench: files of `edge bench --json`. measure: bench here and now."""

    bundle: Path
    against: str | None = None
    text: Path | None = None
    windows: int = WINDOWS
    bench: tuple[Path, ...] = ()
    measure: bool = False
    threads: int | None = None


def gather(request: Request, progress: Progress) -> Findings:
    """Raises BundleError for a damaged bundle, UnsupportedError for a text or file that cannot be used, and what
    reading the checkpoint and running the engines raise."""
    bundle = load(request.bundle)
    refuse_encoder(bundle)
    origin, proofs = provenance(bundle), read_proofs(bundle)
    recipes = [Recipe.from_data(variant.recipe) for variant in bundle.variants]
    sizes = [artifact_sizes(variant) for variant in bundle.variants]
    speeds = tuple(each for file in request.bench for each in speed.read(file))
    text = read_text(request.text or TEXT)
    compared = _Comparison(None, *[[None] * len(sizes)] * 3)
    if request.against is not None:
        directory = resolve(request.against, progress=progress).directory
        with Checkpoint.open(directory) as checkpoint:
            compared = _compare(checkpoint, bundle, recipes, text, request, progress)
    if request.measure:
        speeds += _measure(bundle, request.threads, progress)
    progress.done()
    columns = (bundle.variants, sizes, compared.bits, compared.errors, compared.evaluations)
    return Findings(
        bundle,
        origin,
        tuple(
            VariantFindings(v, facts(bundle, v), size, proofs.get(v.name), bits, lost, said)
            for v, size, bits, lost, said in zip(*columns, strict=True)
        ),
        compared.original,
        speeds,
    )


@dataclass(frozen=True)
class _Comparison:
    """With the checkpoint, a value for each variant."""

    original: Sizes | None
    bits: Sequence[NDArray[np.float64] | None]
    errors: Sequence[Errors | None]
    evaluations: Sequence[Evaluation | None]


def _compare(
    checkpoint: Checkpoint,
    bundle: Bundle,
    recipes: Sequence[Recipe],
    text: str,
    request: Request,
    progress: Progress,
) -> _Comparison:
    model = describe_whole(checkpoint)
    decoder = text_of(model)
    found: list[Errors | None] = [None] * len(recipes)
    bits: list[NDArray[np.float64] | None] = [None] * len(recipes)
    if has_columns(decoder):
        found = [*_errors(checkpoint, model, bundle.variants, recipes, progress)]
        bits = [storage_bits(decoder, recipe) for recipe in recipes]
    else:
        progress.note(f"{decoder.architecture} has layers of other matrices: their errors are not drawn")
    reference = CheckpointReference(checkpoint, decoder, name=bundle.name)
    shortest = min(variant.context_length for variant in bundle.variants)
    length = min(LENGTH, shortest, len(reference.encode(text)) + (reference.bos is not None))
    evaluations = [
        evaluate(
            variant.path,
            reference,
            text,
            length=length,
            windows=request.windows,
            threads=request.threads,
            progress=progress,
            name=variant.name,
            text_name=(request.text or TEXT).name,
        )
        if runtimes.accepts(variant.path)
        else None
        for variant in bundle.variants
    ]
    return _Comparison(checkpoint_sizes(checkpoint, decoder), bits, found, evaluations)


def _errors(
    checkpoint: Checkpoint,
    model: Decoder | Multimodal,
    variants: Sequence[Variant],
    recipes: Sequence[Recipe],
    progress: Progress,
) -> list[Errors]:
    decoder = text_of(model)
    ids = proof_tokens(checkpoint.directory, decoder, min(v.context_length for v in variants))
    with ExitStack() as stack:
        sources = {v.format: source_of(v.format, checkpoint, decoder) for v in variants}
        artifacts = []
        for variant, recipe in zip(variants, recipes, strict=True):
            # A compiled variant cannot be read; it holds what the one holds that it was compiled from.
            readable = next(v for v in variants if v.name == (variant.source or variant.name))
            stored = ROOMS[readable.format].open_stored(
                readable.path, described(readable.format, model), recipe
            )
            stack.callback(stored.close)
            artifacts.append(Artifact(stored, *sources[variant.format]))
        progress.stage("compare the stored weights", len(decoder.layers), "layers")
        return errors(decoder, artifacts, ids, progress.advance)


def _measure(bundle: Bundle, threads: int | None, progress: Progress) -> tuple[Speed, ...]:
    """Two at a time, in turns, as `edge bench --vs` does."""
    contenders = [
        Contender(v.path, v.name, v.context_length, runtimes.EngineSettings())
        for v in bundle.variants
        if runtimes.accepts(v.path)
    ]
    pairs = [tuple(contenders[i : i + 2]) for i in range(0, len(contenders), 2)]
    made = [benchmark.bench(benchmark.Request(pair, threads=threads), progress) for pair in pairs]
    return tuple(each for one in made for each in speed.parse(one.to_data()))
