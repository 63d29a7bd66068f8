"""One choice for each of many groups, least cost within a budget: the multiple-choice knapsack.

Dynamic programming over the budget (Pisinger, "A minimal algorithm for the multiple-choice knapsack problem",
EJOR 83, 1995, section 2). Sizes are integers; what a group takes above its smallest choice is counted in units of
their greatest common divisor. Where that makes at most STEPS steps the answer is an optimum. Otherwise a unit is a
STEPS-th of the range and sizes are rounded up: the answer is then never worse than the optimum of a budget smaller
by one unit a group, and `Solution.bound`, which no choice can go below, tells how far it is from the best at most.
The bound is the Lagrangian relaxation's (Everett, Operations Research 11, 1963).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEPS = 1 << 16


@dataclass(frozen=True)
class Choice:
    """One way to store a group: its size (any integer unit) and what it costs."""

    size: int
    cost: float


@dataclass(frozen=True)
class Solution:
    """picks: the index of the choice taken in each group. bound: a cost that no picks within the budget beat."""

    picks: tuple[int, ...]
    size: int
    cost: float
    bound: float


def smallest(groups: Sequence[Sequence[Choice]]) -> int:
    """The size below which no budget can be met."""
    return sum(min(choice.size for choice in group) for group in groups)


def solve(groups: Sequence[Sequence[Choice]], budget: int, *, steps: int = STEPS) -> Solution:
    """Pick one choice in every group so that sizes stay within `budget` and costs add up to least.

    Raises ValueError when `budget` is below `smallest(groups)`, or a group is empty.
    """
    base = smallest(groups)
    if budget < base:
        raise ValueError(f"a budget of {budget} is below the smallest size, {base}")
    above = [[choice.size - min(c.size for c in group) for choice in group] for group in groups]
    room = min(budget - base, sum(max(sizes) for sizes in above))
    unit = math.gcd(*(size for sizes in above for size in sizes)) or 1
    unit *= max(1, -(-room // (unit * steps)))
    picks = _tabulate(groups, [[-(-size // unit) for size in sizes] for sizes in above], room // unit)
    picks = _spend(groups, picks, budget)
    chosen = [group[pick] for group, pick in zip(groups, picks, strict=True)]
    size, cost = sum(c.size for c in chosen), math.fsum(c.cost for c in chosen)
    return Solution(tuple(picks), size, cost, min(cost, _bound(groups, budget)))


def _tabulate(groups: Sequence[Sequence[Choice]], sizes: list[list[int]], room: int) -> list[int]:
    """The picks of least cost whose `sizes` add up to at most `room`."""
    least = np.zeros(room + 1)
    taken: list[np.ndarray] = []
    for group, weights in zip(groups, sizes, strict=True):
        best = np.full(room + 1, np.inf)
        pick = np.zeros(room + 1, np.uint8)
        for index, (choice, weight) in enumerate(zip(group, weights, strict=True)):
            if weight <= room:
                found = least[: room + 1 - weight] + choice.cost
                better = found < best[weight:]
                best[weight:][better] = found[better]
                pick[weight:][better] = index
        least = best
        taken.append(pick)
    picks = []
    for pick, weights in zip(reversed(taken), reversed(sizes), strict=True):
        picks.append(int(pick[room]))
        room -= weights[picks[-1]]
    return picks[::-1]


def _spend(groups: Sequence[Sequence[Choice]], picks: list[int], budget: int) -> list[int]:
    """What rounding left over goes to the single changes that lower the cost most."""
    left = budget - sum(group[pick].size for group, pick in zip(groups, picks, strict=True))
    while True:
        gains = [
            (groups[g][pick].cost - choice.cost, g, index, choice.size - groups[g][pick].size)
            for g, pick in enumerate(picks)
            for index, choice in enumerate(groups[g])
        ]
        gain, g, index, more = max((x for x in gains if x[3] <= left), key=lambda x: x[0])
        if gain <= 0:
            return picks
        picks = [*picks[:g], index, *picks[g + 1 :]]
        left -= more


def _bound(groups: Sequence[Sequence[Choice]], budget: int) -> float:
    """max over prices l >= 0 of sum_g min_c (cost + l size) - l budget: concave, by halving the slope's sign."""
    sizes = [np.array([c.size for c in group], np.float64) for group in groups]
    costs = [np.array([c.cost for c in group], np.float64) for group in groups]

    def relaxed(price: float) -> tuple[float, float]:
        value, used = -price * budget, 0.0
        for size, cost in zip(sizes, costs, strict=True):
            best = int(np.argmin(cost + price * size))
            value += float(cost[best] + price * size[best])
            used += float(size[best])
        return value, used

    low, high = 0.0, float(max(cost.max() - cost.min() for cost in costs)) + 1e-300
    best = relaxed(low)[0]
    for _ in range(100):
        middle = (low + high) / 2
        value, used = relaxed(middle)
        best = max(best, value)
        low, high = (middle, high) if used > budget else (low, middle)
    return best
