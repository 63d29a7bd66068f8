"""GPTQ in a block layout (arXiv 2210.17323): codes that make the layer's output, not its weights, right.

For a linear layer with weight W [rows, n] and inputs X, the squared error of the output is, per token,
tr(E H E^T) with E = W - Q and H = X^T X / tokens. With H = V V^T, V upper triangular, that is ||E V||^2, whose
column j holds only the errors of columns 0..j: taking columns in order, each code cancels what the errors before
it left (Babai's nearest plane; the same codes as GPTQ's updates by the Cholesky factor of the inverse, without
the inverse; arXiv 2507.18553 shows that they are equal). A block's scale is chosen when its turn comes: several
scales are tried by coding the whole block with each, and the least ||E V||^2 over the block's columns wins.

Passes of block coordinate descent follow: with all other blocks fixed, a block is coded anew, scale and all,
against the exact error that the others leave, and kept where it lowers tr(E H E^T).

Arrays named *_t are transposed, [columns, rows], so that one column of all rows is contiguous.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.blocks import BLOCK, BlockFormat, Blocks
from quant.plane import better, nearest_plane
from quant.scales import Candidates, candidates, fixed, refit

Floats = NDArray[np.float32]

ROWS = 256
"""Rows coded at once by one thread. Always so many, so that products round the same with any number of threads."""


@dataclass(frozen=True)
class Settings:
    """damping: share of the mean diagonal added to it; shrinkage: share of each element of it, added to that.

    A text says less about a model's inputs than its moments claim, and least about how columns go together: that is
    why a share of the diagonal is added to it. passes: of coordinate descent, 0 for plain GPTQ. act_order: take
    the blocks in descending order of their inputs' energy, and so the columns in a block. dynamic: choose a block's
    scale when its turn comes, for what it then has to make up for; otherwise once and for the weights as they were, by
    the Hessian's diagonal ("static groups").
    """

    damping: float = 0.1
    shrinkage: float = 0.3
    passes: int = 2
    act_order: bool = True
    dynamic: bool = True


@dataclass(frozen=True)
class Factors:
    """What coding needs of a damped Hessian; shared by all weights that take the same inputs.

    order: column indices in coding order, whole blocks at a time. hessian: in that order, float32 [n, n].
    upper: V, float32. blocks: V of each diagonal block of the Hessian alone, float32 [n / 32, 32, 32].
    """

    order: NDArray[np.intp]
    hessian: Floats
    upper: Floats
    blocks: Floats


class SingularError(ValueError):
    """The damped Hessian is not positive definite, or not finite."""


def factorize(hessian: NDArray[np.floating], settings: Settings) -> Factors:
    """Damp and factorize H [n, n]. Columns whose input is always zero get the mean diagonal: any code will do.

    Raises SingularError.
    """
    full: NDArray[np.float64] = np.array(hessian, np.float64)
    mean = float(full.diagonal().mean())
    if not np.isfinite(full).all() or mean <= 0:
        raise SingularError("not finite" if mean > 0 or mean != mean else "all inputs are zero")
    diagonal = damp(full, settings.damping, settings.shrinkage)
    order = _order(diagonal) if settings.act_order else np.arange(len(full))
    ordered: NDArray[np.float64] = full[np.ix_(order, order)]
    try:
        upper = _upper(ordered)
        corners = range(0, len(ordered), BLOCK)
        inner = np.stack([_upper(ordered[i : i + BLOCK, i : i + BLOCK]) for i in corners])
    except np.linalg.LinAlgError:
        raise SingularError("not positive definite") from None
    return Factors(order, ordered.astype(np.float32), upper.astype(np.float32), inner.astype(np.float32))


def damp(hessian: NDArray[np.float64], damping: float, shrinkage: float) -> NDArray[np.float64]:
    """Strengthen the diagonal in place, and return it. Where it is zero it becomes the mean."""
    diagonal: NDArray[np.float64] = np.einsum("ii->i", hessian)
    mean = diagonal.mean()
    diagonal *= 1 + shrinkage
    diagonal[diagonal == 0] = mean
    diagonal += damping * mean
    return diagonal


def _order(diagonal: NDArray[np.float64]) -> NDArray[np.intp]:
    """Blocks by descending energy, columns within a block too; ties keep their place."""
    grouped = diagonal.reshape(-1, BLOCK)
    inside = np.argsort(-grouped, axis=1, kind="stable")
    groups = np.argsort(-grouped.sum(axis=1), kind="stable")
    return (inside + np.arange(len(grouped))[:, None] * BLOCK)[groups].reshape(-1)


def _upper(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """V, upper triangular, with V V^T = matrix."""
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    return lower[::-1, ::-1].astype(np.float64)


def quantize(weight: Floats, factors: Factors, fmt: BlockFormat, settings: Settings) -> Blocks:
    """Codes of `weight` float32 [rows, n] for inputs whose Hessian is in `factors`. Rows are independent.

    Every core takes ROWS of them at a time.
    """
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, columns // BLOCK), np.float16)
    zeros = None if fmt.symmetric else np.empty(scales.shape, np.uint8)

    def code(start: int) -> None:
        part = slice(start, min(start + ROWS, rows))
        work = _Rows(weight[part], factors, fmt, dynamic=settings.dynamic)
        work.forward()
        for _ in range(settings.passes):
            work.descend()
        work.store(codes[part], scales[part], None if zeros is None else zeros[part])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(code, range(0, rows, ROWS)))  # a list, to meet what a thread raised
    return Blocks(fmt, codes, scales, zeros)


class _Rows:
    """Some rows of a weight while they are coded, columns in coding order and transposed."""

    def __init__(self, weight: Floats, factors: Factors, fmt: BlockFormat, *, dynamic: bool) -> None:
        self.factors, self.format = factors, fmt
        self.weight_t = np.ascontiguousarray(weight.T[factors.order])
        columns, rows = self.weight_t.shape
        self.error_t = np.zeros_like(self.weight_t)
        self.codes_t = np.zeros_like(self.weight_t)
        self.scales = np.zeros((columns // BLOCK, rows), np.float32)
        self.zeros = np.zeros((columns // BLOCK, rows), np.float32)
        self._static = None if dynamic else [self._alone(part) for part in self._parts()]

    def _alone(self, part: slice) -> Candidates:
        """The scales that are best for a block's weights as they are, by the diagonal of the Hessian."""
        target = self.weight_t[part]
        factor = np.diag(np.sqrt(np.diagonal(self.factors.hessian)[part]))
        best = nearest_plane(target, np.zeros_like(target), factor, candidates(target, self.format))
        return fixed(best.scale, best.zero, self.format)

    def forward(self) -> None:
        """One pass of nearest plane, block after block."""
        upper = self.factors.upper
        for block, part in enumerate(self._parts()):
            inner = upper[part, part]
            diagonal = np.diagonal(inner)[:, None]
            carried = (upper[: part.start, part].T @ self.error_t[: part.start]) / diagonal
            self._code(block, part, self.weight_t[part], carried, inner, None)

    def descend(self) -> None:
        """One pass of coordinate descent over the blocks."""
        hessian = self.factors.hessian
        gradient = hessian @ self.error_t
        for block, part in enumerate(self._parts()):
            before = self.error_t[part].copy()
            inner = hessian[part, part]
            # The block's errors that would be best, given the others: zero gradient over the block.
            best = before - np.linalg.solve(inner, gradient[part])
            target = self.weight_t[part] - best
            held = before - best
            factor = self.factors.blocks[block]
            self._code(block, part, target, np.zeros_like(target), factor, np.square(factor.T @ held).sum(0))
            change = self.error_t[part] - before
            if change.any():
                gradient += hessian[:, part] @ change

    def _code(
        self,
        block: int,
        part: slice,
        target: Floats,
        carried: Floats,
        factor: Floats,
        held: Floats | None,
    ) -> None:
        """Code one block [32, rows] for `target`; with `held`, only the rows whose cost gets below it."""
        if self._static is not None:
            coded = nearest_plane(target, carried, factor, self._static[block])
        else:
            coded = nearest_plane(target, carried, factor, candidates(target + carried, self.format))
            aim = factor.T @ target + carried * np.diagonal(factor)[:, None]
            for _ in range(2):
                again = refit(aim, factor.T @ coded.codes, coded.zero, self.format)
                coded = better(coded, nearest_plane(target, carried, factor, again))
        codes, scale, zero = coded.codes, coded.scale, coded.zero
        if held is not None:
            keep = coded.cost >= held
            codes = np.where(keep, self.codes_t[part], codes)
            scale = np.where(keep, self.scales[block], scale)
            zero = np.where(keep, self.zeros[block], zero)
        self.codes_t[part], self.scales[block], self.zeros[block] = codes, scale, zero
        self.error_t[part] = self.weight_t[part] - codes * scale

    def _parts(self) -> list[slice]:
        return [slice(i, i + BLOCK) for i in range(0, len(self.weight_t), BLOCK)]

    def store(
        self, codes: NDArray[np.uint8], scales: NDArray[np.float16], zeros: NDArray[np.uint8] | None
    ) -> None:
        """Undo the order and the transposition; codes counted from 0."""
        half = np.float32(1 << (self.format.bits - 1))
        centre = np.full_like(self.zeros, half) if zeros is None else self.zeros
        counted = self.codes_t.reshape(-1, BLOCK, self.codes_t.shape[1]) + centre[:, None]
        codes[:, self.factors.order] = counted.reshape(self.codes_t.shape).T
        place = self.factors.order[::BLOCK] // BLOCK
        scales[:, place] = self.scales.T
        if zeros is not None:
            zeros[:, place] = self.zeros.T
