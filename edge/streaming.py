"""The one pass: every tensor is read once, encoded once per recipe, and handed to every writer."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.errors import CheckpointError
from converters.rewriting import Change
from converters.safetensors_header import DTYPES
from converters.writer import ArtifactWriter
from edge.progress import Progress
from quant.recipe import Recipe

# Small enough that a few chunks in flight stay far below any model, large enough that the disk sees big reads.
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Stream:
    """One recipe and the writers that share its encoded chunks, of rows that are changed before, or not."""

    recipe: Recipe
    writers: list[ArtifactWriter]
    change: Change | None = None


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop) of one weight."""

    weight: Weight
    start: int
    stop: int


def chunks(weights: Iterable[Weight], row_bytes: Mapping[str, int]) -> Iterator[Chunk]:
    """All rows of all weights in order, about CHUNK_BYTES at a time."""
    for weight in weights:
        step = max(1, CHUNK_BYTES // row_bytes[weight.name])
        for start in range(0, weight.rows, step):
            yield Chunk(weight, start, min(start + step, weight.rows))


def _row_bytes(checkpoint: Checkpoint, weight: Weight) -> int:
    columns = weight.shape[1] if weight.is_matrix else 1
    return columns * DTYPES[checkpoint.weight_dtype(weight)].itemsize


def run(
    checkpoint: Checkpoint,
    weights: Sequence[Weight],
    streams: Sequence[Stream],
    *,
    threads: int,
    progress: Progress,
    left_out: Container[str] = (),
) -> int:
    """Stream `weights` through `streams`; returns the bytes read.

    At most 2 * `threads` chunks are in memory. Writers place chunks by position, so the bytes do not depend on
    `threads`. Raises CheckpointError when a tensor of the checkpoint was left unread that `left_out` does not name;
    the first error of any chunk otherwise.
    """
    row_bytes = {w.name: _row_bytes(checkpoint, w) for w in weights}
    progress.stage("convert", sum(row_bytes[w.name] * w.rows for w in weights))
    stopped = threading.Event()

    def work(chunk: Chunk) -> int:
        if stopped.is_set():
            return 0
        raw = checkpoint.weight_rows(chunk.weight, chunk.start, chunk.stop)
        for stream in streams:
            writers = [writer for writer in stream.writers if writer.holds(chunk.weight)]
            if writers:
                rows = stream.change(chunk.weight, chunk.start, raw) if stream.change else raw
                encoded = stream.recipe.encode(chunk.weight, rows, start=chunk.start)
            for writer in writers:
                writer.write(chunk.weight, chunk.start, encoded)
        progress.advance(raw.nbytes)
        return raw.nbytes

    total = 0
    pending: set[Future[int]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="convert") as pool:
        try:
            for chunk in chunks(weights, row_bytes):
                pending.add(pool.submit(work, chunk))
                if len(pending) >= 2 * threads:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    total += sum(f.result() for f in finished)
            total += sum(f.result() for f in pending)
        finally:
            stopped.set()
    if unread := [name for name in checkpoint.unread() if name not in left_out]:
        raise CheckpointError(
            f"{len(unread)} tensor(s) were left unread, first {unread[0]}",
            hint="the checkpoint holds more than its config describes: a bug in converters/models, or a foreign tensor",
        )
    return total
