"""LoftQ (arXiv 2310.08659) against the quantizer that is deployed: a low-rank correction of what rounding loses.

    min ||W - Q - B A||_F:  Q_t = q(W - B_{t-1} A_{t-1}),  B_t A_t = the best rank-r approximation of W - Q_t   (alg. 1)

The paper takes any quantizer q. Here it is the round trip through the codec that ships (`quant.recipe`), so the
backbone that the correction was made for is, byte for byte, what `edge convert` writes of the checkpoint of
`Correction.base`: W - B_{t-1} A_{t-1} in the checkpoint's dtype, which is W itself with one iteration. The paper's own
code starts at alpha / r < 1 and so not at its optimum; an update here is b a, with a scale of 1.

q is no projection: an iteration may end further away than the one before, though the one after the first rounding
never ends further away than no correction at all. The nearest of all is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from quant.adapters.linears import Floats, Linear, Pairs, RoundTrip
from quant.tensor_file import rewrite


@dataclass(frozen=True)
class Correction:
    """a: float32 [rank, in], b: float32 [out, rank]. base: what the device rounds, [out, in] in the dtype that was
    given. errors: ||W - Q_t - B_t A_t|| / ||W||, first without a correction, then of each iteration."""

    a: Floats
    b: Floats
    base: NDArray[Any]
    errors: tuple[float, ...]


def correct(
    weight: NDArray[Any], deployed: Callable[[NDArray[Any]], Floats], *, rank: int, iterations: int
) -> Correction:
    """The correction of `weight` [out, in], any float dtype of a checkpoint, after 1 or more `iterations`.

    deployed: rows in that dtype to what the device computes with, float32.
    """
    wide = weight.astype(np.float32)
    norm = float(np.linalg.norm(wide)) or 1.0
    base, best = weight, None
    errors: list[float] = []
    for _ in range(iterations):
        residual = wide - deployed(base)
        if not errors:
            errors.append(float(np.linalg.norm(residual)) / norm)
        a, b = best_approximation(residual, rank)
        update = b @ a
        errors.append(float(np.linalg.norm(residual - update)) / norm)
        if best is None or errors[-1] < min(errors[:-1]):
            best = a, b, base
        base = (wide - update).astype(weight.dtype)
    if best is None:
        raise ValueError(f"{iterations} iterations")
    return Correction(*best, tuple(errors))


def best_approximation(matrix: Floats, rank: int) -> tuple[Floats, Floats]:
    """(a [rank, in], b [out, rank]), float32, whose product b a is nearest to `matrix` in the Frobenius norm; the
    singular values' roots are in both. Rows beyond the matrix's own rank are zeros.

    Eigenvectors of the smaller Gram matrix in float64: a residual of rounding has no small singular values among its
    first that squaring would lose. Signs are fixed, so that a run gives what the last one gave.
    """
    wide = matrix.astype(np.float64)
    flat = wide.shape[0] > wide.shape[1]
    if flat:
        wide = wide.T
    left = np.linalg.eigh(wide @ wide.T)[1][:, ::-1][:, :rank]
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    right = left.T @ wide
    values = np.linalg.norm(right, axis=1)
    root = np.sqrt(values)
    outer, inner = left * root, right / np.where(root > 0, root, 1)[:, None]
    a, b = (outer.T, inner.T) if flat else (inner, outer)
    missing = rank - len(a)
    a, b = np.pad(a, ((0, missing), (0, 0))), np.pad(b, ((0, 0), (0, missing)))
    return np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)


def correct_checkpoint(
    checkpoint: Checkpoint,
    found: Sequence[Linear],
    round_trip: RoundTrip,
    directory: Path,
    *,
    rank: int,
    iterations: int,
    advance: Callable[[int], None],
) -> tuple[Pairs, list[dict[str, Any]]]:
    """Write the checkpoint of the bases into `directory`; the pairs, and of each layer {module, rank, errors}.

    One tensor is in memory at a time. `advance` is told 1 after each layer.
    """
    by_tensor = {linear.tensor: linear for linear in found}
    pairs: Pairs = {}
    told: dict[str, dict[str, Any]] = {}

    def base(tensor: str) -> NDArray[Any] | None:
        if (linear := by_tensor.get(tensor)) is None:
            return None
        correction = correct(
            checkpoint.read(tensor),
            lambda rows: linear.deployed(round_trip, rows),
            rank=min(rank, *linear.shape),
            iterations=iterations,
        )
        pairs[linear.module] = correction.a, correction.b
        told[linear.module] = {
            "module": linear.module,
            "rank": len(correction.a),
            "errors": [round(error, 6) for error in correction.errors],
        }
        advance(1)
        return correction.base

    rewrite(checkpoint, directory, base)
    order = [linear.module for linear in found]
    return {module: pairs[module] for module in order}, [told[module] for module in order]
