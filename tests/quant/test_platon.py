"""PLATON: the schedule, the scores, exact counts, and what a weight that was pruned can still do."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from quant.prune.importance import Importance, Smoothing
from quant.prune.platon import Platon
from quant.prune.schedule import Cubic
from quant.prune.weights import Unstructured, keep_highest


def test_schedule_at_its_corners() -> None:
    cubic = Cubic(final=0.2, steps=100, warmup=10, settle=20)
    assert [cubic.ratio(t) for t in (0, 10)] == [1.0, 1.0]
    assert cubic.ratio(11) == pytest.approx(0.2 + 0.8 * (69 / 70) ** 3, abs=1e-15)
    assert cubic.ratio(45) == pytest.approx(0.2 + 0.8 / 8, abs=1e-15)
    assert [cubic.ratio(t) for t in (80, 81, 100)] == [0.2, 0.2, 0.2]
    ratios = [cubic.ratio(t) for t in range(101)]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize("phases", [(50, 50), (-1, 0), (0, 100)])
def test_phases_that_do_not_fit_are_refused(phases: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="fit"):
        Cubic(final=0.2, steps=100, warmup=phases[0], settle=phases[1])


def test_scores_are_the_papers() -> None:
    """Two windows of two steps, by hand, from zero averages."""
    w = nn.Parameter(torch.tensor([2.0, -3.0]))
    importance = Importance({"w": w}, Smoothing(beta1=0.5, beta2=0.75, window=2))
    for gradient in ([1.0, 0.0], [3.0, 1.0], [-1.0, 2.0], [0.0, 2.0]):
        w.grad = torch.tensor(gradient)
        importance.observe()
    # Sensitivities of the windows: [4, 1.5] and [1, 6]; Ibar: [2, 0.75], then [1.5, 3.375].
    # |I - Ibar|: [2, 0.75] and [0.5, 2.625]; U: [0.5, 0.1875], then [0.5, 0.796875].
    expected = torch.tensor([1.5 * 0.5, 3.375 * 0.796875])
    assert torch.equal(importance.scores()["w"], expected)


def test_a_scaled_loss_changes_no_ranking() -> None:
    """By a power of two, so that scores scale by its square to the last bit."""
    w = nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))
    runs = [Importance({"w": w}, Smoothing(window=2)) for _ in range(2)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        gradient = torch.randn(50, generator=generator)
        for run, scale in zip(runs, (1, 8), strict=True):
            w.grad = gradient * scale
            run.observe()
    first, second = (run.scores()["w"] for run in runs)
    assert torch.equal(second, first * 64)


@pytest.mark.parametrize("count", [0, 1, 7, 12, 23, 24])
def test_the_count_is_exact_even_where_all_scores_tie(count: int) -> None:
    tied = {"a": torch.zeros(4, 5), "b": torch.zeros(4)}
    few = {"a": torch.zeros(4, 5), "b": torch.tensor([1.0, 2.0, 0.0, 0.0])}
    for scores in (tied, few):
        masks = keep_highest(scores, count)
        assert sum(int(m.sum()) for m in masks.values()) == count
        assert {n: m.shape for n, m in masks.items()} == {n: s.shape for n, s in scores.items()}
    assert masks["b"][:2].all() or count < 2


def test_the_highest_stay_across_tensors() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(30, 7, generator=generator) for n in "ab"}
    masks = keep_highest(scores, 100)
    kept = torch.cat([scores[n][masks[n]] for n in scores])
    lost = torch.cat([scores[n][~masks[n]] for n in scores])
    assert kept.min() > lost.max()


def _run(steps: int, *, warmup: int = 4, settle: int = 10, window: int = 5) -> list[torch.Tensor]:
    """Which weights are zero after each step of a small regression, whose target is another from half way on."""
    torch.manual_seed(0)
    model, teachers = nn.Linear(16, 16, bias=False), torch.randn(2, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    parameters = {"w": model.weight}
    schedule = Cubic(final=0.25, steps=steps, warmup=warmup, settle=settle)
    pruner = Unstructured(parameters)
    smoothing = Smoothing(beta1=0.5, beta2=0.5, window=window)
    platon = Platon(Importance(parameters, smoothing), schedule, pruner)
    zero = []
    for step in range(1, steps + 1):
        x = torch.randn(8, 16)
        optimizer.zero_grad()
        ((model(x) - x @ teachers[2 * step // steps % 2].T) ** 2).mean().backward()
        optimizer.step()
        platon.after_step(step)
        zero.append(model.weight.detach() == 0)
    return zero


def test_pruned_weights_grow_again_until_the_last_phase() -> None:
    zero = _run(60)
    counts = [int(z.sum()) for z in zero]
    assert counts[:4] == [0] * 4
    # Between two maskings every weight is trained on.
    assert counts[9] > 0
    assert counts[10] == 0
    # The sets are not nested: some weight is pruned at the end of one window and not at that of the next.
    ends = [zero[t - 1] for t in range(5, 55, 5)]
    assert any((before & ~after).any() for before, after in pairwise(ends))
    # Held from step 50 on, at exactly a quarter of 256.
    assert counts[49:] == [192] * 11


def test_a_run_ends_pruned_without_a_last_phase() -> None:
    assert int(_run(23, settle=0)[-1].sum()) == 192
