"""LoftQ against the quantizer that ships: its bound, its backbone, and what the device then says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.models import describe
from quant.adapters.linears import linears
from quant.adapters.loftq import best_approximation, correct
from quant.blocks import INT4, dequantize
from quant.recipe import Recipe
from quant.rtn import quantize

Tiny = Callable[..., Path]


def deployed(rows: NDArray[Any]) -> NDArray[np.float32]:
    return dequantize(quantize(rows, INT4))


@pytest.mark.parametrize("shape", [(96, 64), (64, 160), (8, 32)])
def test_the_approximation_is_the_truncated_svd(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape, np.float32)
    for rank in (1, 7, 20):
        a, b = best_approximation(matrix, rank)
        u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        assert (a.shape, b.shape) == ((rank, shape[1]), (shape[0], rank))
        # float32 halves of a float64 product.
        np.testing.assert_allclose(b @ a, (u[:, :rank] * s[:rank]) @ v[:rank], atol=2e-6 * s[0])


def test_a_matrix_without_residual_needs_no_update() -> None:
    a, b = best_approximation(np.zeros((32, 64), np.float32), 4)
    assert not a.any()
    assert not b.any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_errors_are_of_what_is_given(dtype: str) -> None:
    """The errors reported are those of the base given, as the device rounds it: nothing else is assumed of it."""
    import ml_dtypes

    weight = np.random.default_rng(1).standard_normal((96, 128), np.float32)
    weight = weight.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    found = correct(weight, deployed, rank=8, iterations=5)
    assert found.base.dtype == weight.dtype
    left = weight.astype(np.float32) - deployed(found.base) - found.b @ found.a
    norm = np.linalg.norm(weight.astype(np.float32))
    assert np.linalg.norm(left) / norm == pytest.approx(min(found.errors[1:]), rel=1e-5)
    # Guaranteed: the best approximation of a residual is no worse than none. Monotony is not.
    assert found.errors[1] < found.errors[0]
    assert len(found.errors) == 6


def test_one_iteration_leaves_the_weights_as_they_are() -> None:
    weight = np.random.default_rng(2).standard_normal((64, 64), np.float32)
    found = correct(weight, deployed, rank=4, iterations=1)
    np.testing.assert_array_equal(found.base, weight)


def test_gain_grows_with_the_rank_and_is_lost_with_another_scale() -> None:
    """A start at alpha / r < 1, which the official code has, is not the optimum."""
    weight = np.random.default_rng(3).standard_normal((128, 128), np.float32)
    errors = [correct(weight, deployed, rank=r, iterations=5).errors[-1] for r in (2, 8, 32)]
    assert errors == sorted(errors, reverse=True)
    found = correct(weight, deployed, rank=32, iterations=5)
    backbone = deployed(found.base)
    at = [np.linalg.norm(weight - backbone - s * found.b @ found.a) for s in (1.0, 0.5, 0.25)]
    assert at == sorted(at)


def test_the_quantizer_is_the_recipes_own(tiny: Tiny) -> None:
    """A correction made for NF4, as PEFT's own `init_lora_weights="loftq"` makes it, corrects something else."""
    recipe = Recipe.preset("int4")
    with Checkpoint.open(tiny("phi4-mini", dtype="f32")) as checkpoint:
        linear = linears(describe(checkpoint))[0]
        weight = checkpoint.read(linear.tensor)

    def round_trip(rows: NDArray[Any]) -> NDArray[np.float32]:
        return linear.deployed(lambda w, i, raw: recipe.decode(recipe.encode(w, raw, start=i)), rows)

    np.testing.assert_array_equal(round_trip(weight), deployed(weight))
    ours = correct(weight, round_trip, rank=8, iterations=1)
    theirs = correct(weight, nf4, rank=8, iterations=1)

    def error(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(weight - round_trip(weight) - b @ a))

    without = np.linalg.norm(weight - round_trip(weight))
    assert error(ours.a, ours.b) < without
    assert error(theirs.a, theirs.b) > without


def nf4(rows: NDArray[Any]) -> NDArray[np.float32]:
    """QLoRA's table (arXiv 2305.14314, appendix E) over blocks of 64, as bitsandbytes rounds."""
    table = np.array(
        [-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0, 0.0795803, 0.1609302,
         0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1], np.float32)  # fmt: skip
    blocks = rows.astype(np.float32).reshape(-1, 64)
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    nearest = table[np.abs((blocks / scale)[:, :, None] - table).argmin(-1)]
    values: NDArray[np.float32] = (nearest * scale).reshape(rows.shape)
    return values
