"""The proof: does an artifact still say what its checkpoint says?

Three questions, each blind to what the others see:
1. stored weights: every block that was written, read back and dequantized, against the checkpoint's own rows
   (finds a wrong scale, swapped or permuted rows, a truncated tensor) and, bit by bit, against what the recipe
   makes of those rows (finds a single wrong code); every constant in the artifact, and the rotary angles that
   the runtime will use, against the model's definition (finds an altered epsilon, reversed LongRoPE factors);
2. fidelity: logits of the artifact in its own runtime against the reference run on the *stored* weights (finds
   a wrong graph: a norm left out, a wrong mask; quantization loss cancels, so the limit is tight);
3. quality: the same logits against the reference run on the checkpoint's weights (what shrinking cost).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Rope, Weight
from converters.rewriting import RowSource
from quant.blocks import BLOCK

CHUNK_BYTES = 8 << 20
# Rounding to nearest with a squared-error search never leaves a block of 32 with more than a third of its norm
# as error (worst case: one extreme, 31 values just below half a step of absmax/8); a doubled scale or a foreign
# row leaves its whole norm. Half lies between.
BLOCK_ERROR_LIMIT = 0.5
# Blocks whose norm is below this share of their row's largest block lose to the float16 scale, not to a fault.
NEGLIGIBLE = 1e-4
# float32 angles of positions up to 131072 differ by rounding of inv_freq (2**-24 relative) times the position.
ANGLE_LIMIT = 2e-2
# cos^2 + sin^2 = 1 whatever the angle: only float32 rounding of two values and one product is left (2**-22).
AMPLITUDE_LIMIT = 1e-5
# ONNX attributes and GGUF metadata hold float32 (2**-24 relative), the config float64.
FACT_TOLERANCE = 1e-6

Codec = Callable[[Weight, int, NDArray[np.generic]], NDArray[np.float32] | None]
"""(weight, first row, raw rows) to the float32 rows that an artifact must hold; None where nothing can tell any
more: calibrated codes are kept for a while only."""

Calibrated = Callable[[Weight], bool]
"""Whether a weight's codes were chosen for the layer's output (quant.gptq): its blocks are then free to be off, its
whole rows are not."""


class Fact(NamedTuple):
    """A constant of an artifact: where it stands, what stands there (None: nothing), what must stand there."""

    key: str
    found: Any
    expected: Any


class Stored(Protocol):
    """An artifact's weights, read back from its files by neutral name."""

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Dequantized rows [start, stop) as the runtime will use them."""

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """(cos, sin), float [len(positions), rope.dim / 2], that the runtime uses at this total length."""

    def facts(self, context_length: int) -> Iterable[Fact]:
        """The constants by which the runtime computes and stops, for a bundle of this context length."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Divergence:
    """Candidate against reference over `positions` next-token distributions; KL in nats, logits as they are.

    cosine: of all logits together, as two vectors.
    """

    positions: int
    top1: float
    kl_mean: float
    kl_p99: float
    max_logit_error: float
    cosine: float

    def to_data(self) -> dict[str, Any]:
        # Few enough digits that no BLAS or thread count shows.
        return {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in asdict(self).items()} | {
            "cosine": round(self.cosine, 5)
        }


def divergence(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> Divergence:
    """Compare logits [positions, vocab]; KL(reference || candidate) in float64, a few positions at a time."""
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    kl = np.empty(len(reference))
    same = np.empty(len(reference), dtype=bool)
    worst, product, squares = 0.0, 0.0, [0.0, 0.0]
    step = max(1, (1 << 18) // reference.shape[1])  # float64 scratch of a few MiB
    for i in range(0, len(reference), step):
        p, q = (x[i : i + step].astype(np.float64) for x in (reference, candidate))
        same[i : i + step] = p.argmax(-1) == q.argmax(-1)
        error = np.abs(p - q).max(initial=0.0)
        worst = max(worst, float(error)) if np.isfinite(error) else float("inf")
        product += float(np.vdot(p, q))
        squares = [total + float(np.vdot(x, x)) for total, x in zip(squares, (p, q), strict=True)]
        log_p, log_q = _log_softmax(p), _log_softmax(q)
        kl[i : i + step] = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    kl = np.where(np.isfinite(kl), np.maximum(kl, 0.0), np.inf)
    length = math.sqrt(squares[0] * squares[1])
    cosine = product / length if length else 1.0
    return Divergence(
        len(kl), float(same.mean()), float(kl.mean()), float(np.quantile(kl, 0.99)), worst, cosine
    )


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x - x.max(-1, keepdims=True)
    normalized: NDArray[np.float64] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return normalized


@dataclass(frozen=True)
class StoredReport:
    """Outcome of the stored-weights check: how much was compared and every weight that is wrong."""

    weights: int
    values: int
    worst_block_error: float
    worst_weight: str
    faults: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "faults": list(self.faults),
            "worst_block_error": float(f"{self.worst_block_error:.4g}"),
        }


class Weighed(Protocol):
    """A decoder, with encoders or without."""

    @property
    def rope(self) -> Rope: ...

    def weights(self) -> Iterable[Weight]: ...


def check_stored(
    checkpoint: RowSource,
    model: Weighed,
    stored: Stored,
    *,
    context_length: int,
    codec: Codec,
    calibrated: Calibrated = lambda _: False,
    advance: Callable[[int], None] | None = None,
) -> StoredReport:
    """Compare every stored row with the checkpoint's, every constant, and the rotary angles up to `context_length`.

    `codec` maps raw rows to the float32 rows that the artifact must hold, bit for bit: the recipe's round trip.
    Bounded memory: `CHUNK_BYTES` of source rows at a time. `advance` is told the source bytes compared.
    """
    faults: list[str] = []
    worst, worst_name, count, values = 0.0, "", 0, 0
    for weight in model.weights():
        count += 1
        columns = weight.shape[1] if weight.is_matrix else 1
        step = max(1, CHUNK_BYTES // (4 * columns))
        for start in range(0, weight.rows, step):
            stop = min(start + step, weight.rows)
            raw = checkpoint.weight_rows(weight, start, stop)
            found = stored.rows(weight, start, stop)
            error, where = _worst_block(raw.astype(np.float32), found, whole_rows=calibrated(weight))
            values += raw.size
            if advance:
                advance(raw.nbytes)
            if error > worst:
                worst, worst_name = error, weight.name
            if not error <= BLOCK_ERROR_LIMIT:
                faults.append(
                    f"{weight.name}: row {start + where} is stored with a relative error of {error:.3g}"
                )
                break
            made = codec(weight, start, raw)
            if made is not None and not np.array_equal(made, found):
                row, differ = _first_difference(made, found)
                faults.append(
                    f"{weight.name}: row {start + row} is not stored as the recipe makes it ({differ} values differ)"
                )
                break
    faults += _fact_faults(stored.facts(context_length))
    faults += _rope_faults(model.rope, stored, context_length)
    return StoredReport(count, values, worst, worst_name, tuple(faults))


def _worst_block(
    source: NDArray[np.float32], found: NDArray[np.float32], *, whole_rows: bool
) -> tuple[float, int]:
    """Largest ||source - found|| / ||source|| over blocks of 32 columns (1 for vectors), and its row."""
    if source.shape != found.shape:
        return float("inf"), 0
    width = (
        BLOCK
        if source.ndim == 2 and source.shape[1] % BLOCK == 0 and not whole_rows
        else 1
        if source.ndim == 1
        else source.shape[1]
    )
    a = source.reshape(len(source), -1, width)
    d = a - found.reshape(a.shape)
    norm = np.sqrt(np.einsum("rbc,rbc->rb", a, a))
    error = np.sqrt(np.einsum("rbc,rbc->rb", d, d))
    # Half a step of the smallest float16 scale, 2**-24, times the largest code, 8, lost by each of `width` values
    # is at most a third of this: below it no rounding could do better.
    floor = np.maximum(norm.max(-1, keepdims=True) * NEGLIGIBLE, np.float32(2.0**-23 * width**0.5))
    ratio = error / np.maximum(norm, floor)
    ratio = np.where(np.isfinite(ratio), ratio, np.inf)
    row = int(ratio.max(-1).argmax())
    return float(ratio[row].max()), row


def _first_difference(made: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[int, int]:
    """First row that differs, and how many values do."""
    different = (made != found).reshape(len(made), -1)
    return int(different.any(-1).argmax()), int(np.count_nonzero(different))


def _fact_faults(facts: Iterable[Fact]) -> list[str]:
    return [
        f"{key} is {'missing' if found is None else _short(found)}, must be {_short(expected)}"
        for key, found, expected in facts
        if not _agree(found, expected)
    ]


def _short(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


def _agree(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return isinstance(found, int | float) and math.isclose(found, expected, rel_tol=FACT_TOLERANCE)
    return bool(found == expected)


def _rope_faults(rope: Rope, stored: Stored, context_length: int) -> list[str]:
    lengths = [min(context_length, rope.original_context)]
    if rope.is_longrope and context_length > rope.original_context:
        lengths += [rope.original_context + 1, context_length]
    faults = []
    for total in lengths:
        positions = np.unique(np.linspace(0, total - 1, num=min(total, 64)).astype(np.int64))
        cos, sin = _angles(rope, total, positions)
        found_cos, found_sin = stored.rope_table(total, positions)
        for what, want, found in (("cos", cos, found_cos), ("sin", sin, found_sin)):
            if want.shape != found.shape:
                faults.append(f"rotary {what} table has shape {found.shape}, the model needs {want.shape}")
            elif not (error := float(np.abs(want - found).max())) <= ANGLE_LIMIT:
                faults.append(f"rotary {what} at a length of {total} is off by {error:.3g}")
        if found_cos.shape == found_sin.shape:
            amplitude = np.hypot(found_cos.astype(np.float64), found_sin)
            off = float(np.abs(amplitude / rope.at(total)[1] - 1).max(initial=0.0))
            if not off <= AMPLITUDE_LIMIT:
                faults.append(
                    f"the rotary attention factor at a length of {total} is off by {off:.3g} of itself"
                )
    return faults


def _angles(rope: Rope, total: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
    factors, amplitude = rope.at(total)
    stretch = np.ones(rope.dim // 2) if factors is None else np.asarray(factors, dtype=np.float64)
    inv_freq = 1.0 / (stretch * rope.theta ** (np.arange(0, rope.dim, 2) / rope.dim))
    angle = positions[:, None] * inv_freq
    return np.cos(angle) * amplitude, np.sin(angle) * amplitude
