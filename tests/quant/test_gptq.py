"""GPTQ in a block layout: what it minimises, what it never makes worse, and that it is GPTQ."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from quant import gptq, plane, rtn
from quant.blocks import BLOCK, FORMATS, INT4, BlockFormat, Blocks, dequantize
from quant.scales import Candidates, candidates

EVERY = pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))
Floats = NDArray[np.float32]


def layer(rows: int = 48, columns: int = 96, *, seed: int = 0) -> tuple[Floats, Floats]:
    """A weight and the Hessian of correlated inputs of very different sizes."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) / columns**0.5
    sizes = np.exp(rng.standard_normal(columns))
    inputs = (rng.standard_normal((512, columns)) @ mixing) * sizes
    weight = rng.standard_normal((rows, columns)) * 0.02
    return weight.astype(np.float32), (inputs.T @ inputs / 512).astype(np.float32)


def loss(weight: Floats, hessian: Floats, blocks: Blocks) -> float:
    error = (weight - dequantize(blocks)).astype(np.float64)
    return float(np.einsum("ij,jk,ik->", error, hessian.astype(np.float64), error))


def coded(weight: Floats, hessian: Floats, fmt: BlockFormat, **settings: object) -> Blocks:
    chosen = gptq.Settings(**settings)  # type: ignore[arg-type]
    return gptq.quantize(weight, gptq.factorize(hessian, chosen), fmt, chosen)


@EVERY
@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_are_nearer_than_with_rounding(fmt: BlockFormat, act_order: bool) -> None:
    weight, hessian = layer()
    rounded = loss(weight, hessian, rtn.quantize(weight, fmt))
    # Correlated inputs let one code make up for another: a third off is far from what these give (more than half).
    assert loss(weight, hessian, coded(weight, hessian, fmt, act_order=act_order)) < rounded * 2 / 3


@EVERY
def test_static_scales_stay_and_dynamic_ones_do_better(fmt: BlockFormat) -> None:
    weight, hessian = layer()
    static = coded(weight, hessian, fmt, dynamic=False)
    # The scales are a matter of the weights and of the Hessian's diagonal: correlations do not move them.
    alone = coded(weight, np.diag(np.diagonal(hessian)), fmt, dynamic=False)
    assert np.array_equal(static.scales, alone.scales)
    assert loss(weight, hessian, coded(weight, hessian, fmt)) < loss(weight, hessian, static)
    assert loss(weight, hessian, static) < loss(weight, hessian, rtn.quantize(weight, fmt))


@EVERY
def test_every_pass_lowers_the_loss(fmt: BlockFormat) -> None:
    weight, hessian = layer()
    losses = [loss(weight, hessian, coded(weight, hessian, fmt, passes=n, damping=0.0)) for n in range(4)]
    # float32 keeps the gradient to 1e-6 of itself.
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(losses))
    assert losses[-1] < losses[0] * 0.99


@EVERY
def test_independent_inputs_leave_nothing_to_make_up_for(fmt: BlockFormat) -> None:
    """H = 1: the loss is the squared error of the weights, and the scale of rounding is one of those tried."""
    weight, _ = layer()
    identity = np.eye(weight.shape[1], dtype=np.float32)
    assert loss(weight, identity, coded(weight, identity, fmt)) <= 1.001 * loss(
        weight, identity, rtn.quantize(weight, fmt)
    )


def test_nearest_plane_gives_the_codes_of_gptq() -> None:
    """One block with a given scale, beside the updates by the inverse's Cholesky factor (arXiv 2210.17323, alg. 1)."""
    weight, hessian = layer(64, BLOCK)
    factors = gptq.factorize(hessian, gptq.Settings(act_order=False))
    scale = (np.abs(weight).max(axis=1) / 7).astype(np.float16).astype(np.float32)
    tried = Candidates(scale[None], np.float32(-8), np.float32(7))
    zero = np.zeros_like(weight.T)
    ours = plane.nearest_plane(weight.T.copy(), zero, factors.upper, tried).codes

    damped = factors.hessian.astype(np.float64)
    inverse = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = weight.astype(np.float64)
    theirs = np.empty_like(left)
    for j in range(BLOCK):
        theirs[:, j] = np.clip(np.rint(left[:, j] / scale), -8, 7)
        error = (left[:, j] - theirs[:, j] * scale) / inverse[j, j]
        left[:, j:] -= np.outer(error, inverse[j, j:])
    # float32 against float64: a value half way between two codes may fall to the other side, and takes some of the
    # row's later codes with it.
    same_rows = (theirs == ours.T).all(axis=1)
    assert same_rows.mean() > 0.95


@EVERY
def test_the_compiled_path_codes_as_numpy_does(fmt: BlockFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plane.KERNEL, "the kernel is part of a development install: pip install -e ."
    weight, hessian = layer(50)  # no multiple of the sixteen lanes
    compiled = coded(weight, hessian, fmt)
    monkeypatch.setattr(plane, "KERNEL", False)
    numpy = coded(weight, hessian, fmt)
    # Sums in another order move a value over the border between two codes now and then.
    assert np.mean(compiled.codes == numpy.codes) > 0.98
    assert loss(weight, hessian, compiled) == pytest.approx(loss(weight, hessian, numpy), rel=0.01)


@EVERY
def test_what_comes_out_is_storable(fmt: BlockFormat) -> None:
    weight, hessian = layer()
    weight[3] = 0
    weight[5, :BLOCK] *= 1e-9
    blocks = coded(weight, hessian, fmt)
    assert blocks.codes.max() < 1 << fmt.bits
    assert np.isfinite(blocks.scales).all()
    assert not dequantize(blocks)[3].any()
    if blocks.zeros is not None:
        assert blocks.zeros.max() < 16
        # Exact in float16, as Q4_1's minimum needs (quant.search).
        products = blocks.zeros.astype(np.float32) * blocks.scales.astype(np.float32)
        assert np.array_equal(products.astype(np.float16).astype(np.float32), products)


def test_an_input_that_is_always_zero_costs_nothing() -> None:
    weight, hessian = layer()
    hessian[7] = hessian[:, 7] = 0
    blocks = coded(weight, hessian, INT4)
    assert np.isfinite(dequantize(blocks)).all()
    assert loss(weight, hessian, blocks) < loss(weight, hessian, rtn.quantize(weight, INT4))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_hessian_that_says_nothing_is_refused(value: float) -> None:
    with pytest.raises(gptq.SingularError):
        gptq.factorize(np.full((BLOCK, BLOCK), value), gptq.Settings())


def test_a_hessian_that_is_none_is_refused() -> None:
    matrix = np.ones((BLOCK, BLOCK))
    matrix[0, 1] = matrix[1, 0] = 5
    with pytest.raises(gptq.SingularError, match="not positive definite"):
        gptq.factorize(matrix, gptq.Settings())


@EVERY
def test_candidates_are_what_can_be_stored(fmt: BlockFormat) -> None:
    weight, _ = layer()
    tried = candidates(weight[:, :BLOCK].T, fmt)
    scales = tried.scales
    assert (scales != 0).all()
    assert np.array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert np.all(np.asarray(tried.high) - np.asarray(tried.low) == (1 << fmt.bits) - 1)
