"""The knapsack against every possible choice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.knapsack import Choice, smallest, solve

CHOICES = st.lists(
    st.builds(Choice, size=st.integers(0, 40), cost=st.floats(0, 100, allow_subnormal=False)),
    min_size=1,
    max_size=4,
)
GROUPS = st.lists(CHOICES, min_size=1, max_size=5)
# Sums of the same costs in another order.
ROUNDING = 1e-9


def every(groups: list[list[Choice]]) -> list[tuple[int, float]]:
    return [(sum(c.size for c in p), math.fsum(c.cost for c in p)) for p in itertools.product(*groups)]


@given(groups=GROUPS, extra=st.integers(0, 160))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_choice_within_the_budget_is_better(groups: list[list[Choice]], extra: int) -> None:
    budget = smallest(groups) + extra
    best = min(cost for size, cost in every(groups) if size <= budget)
    found = solve(groups, budget)
    chosen = [group[pick] for group, pick in zip(groups, found.picks, strict=True)]
    assert found.size == sum(c.size for c in chosen) <= budget
    assert found.cost == pytest.approx(math.fsum(c.cost for c in chosen))
    assert found.cost <= best + ROUNDING
    assert found.bound <= best + ROUNDING


@given(groups=GROUPS, extra=st.integers(0, 160), steps=st.integers(1, 12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_with_rounded_sizes_the_budget_and_the_promise_hold(
    groups: list[list[Choice]], extra: int, steps: int
) -> None:
    """The promise: as good as the optimum of a budget smaller by one unit a group."""
    base = smallest(groups)
    budget = base + extra
    found = solve(groups, budget, steps=steps)
    assert found.size <= budget
    widest = sum(max(c.size for c in g) - min(c.size for c in g) for g in groups)
    unit = math.ceil(min(extra, widest) / steps) + 40
    less = budget - len(groups) * unit
    allowed = [cost for size, cost in every(groups) if size <= less]
    if allowed:
        assert found.cost <= min(allowed) + ROUNDING
    assert found.bound - ROUNDING <= min(cost for size, cost in every(groups) if size <= budget)


def test_many_groups_of_odd_sizes_are_near_the_bound() -> None:
    """130 groups as of a real model; gaps above the bound come only from the last group that does not fit."""
    rng = np.random.default_rng(0)
    groups = []
    for blocks in rng.integers(10_000, 900_000, 130).tolist():
        cost = float(rng.lognormal())
        groups.append([Choice(blocks * b, cost * 2.0**-i) for i, b in enumerate((18, 20, 22, 34))])
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        low, high = smallest(groups), sum(g[-1].size for g in groups)
        budget = int(low + share * (high - low))
        found = solve(groups, budget)
        assert found.size <= budget
        assert found.cost - found.bound <= 0.002 * found.cost


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    groups = [[Choice(5, 1.0), Choice(9, 0.5)], [Choice(3, 0.0)]]
    with pytest.raises(ValueError, match="smallest size, 8"):
        solve(groups, 7)
    assert solve(groups, 8).picks == (0, 0)
    assert solve(groups, 12).picks == (1, 0)
