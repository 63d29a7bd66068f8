"""The router's gradient against the exact one, every draw enumerated; routing against PhiMoE's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.models.phimoe.modeling_phimoe import sparsemixer as transformers_sparsemixer

from converters.routing import sparsemixer
from quant.distill.sparsemixer import Method, balance, route, router_weight, rule

EXPERTS, WIDTH = 5, 7
METHODS: tuple[Method, ...] = ("conventional", "euler", "midpoint", "heun")
Loss = Callable[[torch.Tensor], torch.Tensor]


def losses() -> dict[str, Loss]:
    random = torch.Generator().manual_seed(1)
    u, v, w = (torch.randn(WIDTH, dtype=torch.float64, generator=random) for _ in range(3))
    linear: Loss = lambda y: y @ u  # noqa: E731
    return {
        "linear": lambda y: linear(y) + 3,
        "quadratic": lambda y: linear(y) + (y @ v) ** 2,
        "cubic": lambda y: (y @ v) ** 2 + (y @ w) ** 3,
        "smooth": lambda y: torch.tanh((y @ u) / 2) + torch.sin((y @ v) / 2),
    }


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [1, EXPERTS] that want a gradient, and what each expert says [EXPERTS, WIDTH]."""
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(1, EXPERTS, dtype=torch.float64, generator=random, requires_grad=True)
    return scores, torch.randn(EXPERTS, WIDTH, dtype=torch.float64, generator=random)


def exact(f: Loss, *, gate_gradient: bool) -> torch.Tensor:
    scores, experts = problem()
    p = scores.softmax(-1)[0]
    held = p if gate_gradient else p.detach()
    total = torch.stack([p[i] * f(held[i] * experts[i]) for i in range(EXPERTS)]).sum()
    return torch.autograd.grad(total, scores)[0]


def expected(f: Loss, method: Method, *, gate_gradient: bool) -> torch.Tensor:
    """The estimate's mean over every expert and every point on the ray, each by its probability."""
    scores, experts = problem()
    drawn = rule(method, gate_gradient=gate_gradient)
    mean = torch.zeros_like(scores)
    p = scores.softmax(-1).detach()
    for i in range(EXPERTS):
        for scale, chance in ((1.0, drawn.whole), (drawn.small, 1 - drawn.whole)):
            chosen, ones = torch.tensor([[i]]), torch.full((1, 1), scale, dtype=torch.float64)
            weight = router_weight(scores, p, chosen, ones, drawn.factor)
            gradient = torch.autograd.grad(f(weight[0, 0] * experts[i]), scores)[0]
            mean += p[0, i] * chance * gradient
    return mean


@pytest.mark.parametrize("gate_gradient", [True, False])
def test_table_of_errors(gate_gradient: bool) -> None:
    """Exact for polynomials of degree 1, 2 and 3, and the better the higher elsewhere (facts, section 7)."""
    table = {}
    for name, f in losses().items():
        true = exact(f, gate_gradient=gate_gradient)
        for method in METHODS:
            off = expected(f, method, gate_gradient=gate_gradient) - true
            table[name, method] = float(off.norm() / true.norm())
    degrees = {"euler": 1, "midpoint": 2, "heun": 3}
    for name, degree in (("linear", 1), ("quadratic", 2), ("cubic", 3)):
        for method, reach in degrees.items():
            if reach >= degree:
                assert table[name, method] < 1e-12, (name, method, table)
            else:
                assert table[name, method] > 1e-2, (name, method, table)
        assert table[name, "conventional"] > 1e-1
    # Backpropagation alone finds half of a linear loss's gradient, and nothing of it without the gate's.
    assert table["linear", "conventional"] == pytest.approx(0.5 if gate_gradient else 1.0)
    smooth = [table["smooth", method] for method in METHODS]
    assert smooth == sorted(smooth, reverse=True)


def test_inference_is_what_phimoe_routes() -> None:
    """The converter's reference, transformers' own function, and this: the same experts, the same weights."""
    random = np.random.default_rng(0)
    scores = random.standard_normal((400, 6)).astype(np.float32)
    # Near ties, where the weights are not 1.
    scores[::2] = 1 + 0.02 * scores[::2]
    chosen, shares = sparsemixer(scores, 0.02)
    found, weights = route(torch.from_numpy(scores), tolerance=0.02, training=False)
    theirs, picked = transformers_sparsemixer(torch.from_numpy(scores), jitter_eps=0.01, training=False)
    np.testing.assert_array_equal(found.numpy(), chosen)
    np.testing.assert_array_equal(picked.numpy(), chosen)
    # One rounding of a float32 softmax.
    np.testing.assert_allclose(weights.numpy(), shares, atol=1e-6)
    np.testing.assert_allclose(theirs.numpy(), shares, atol=1e-6)
    assert (shares < 0.9).mean() > 0.1


def test_the_published_gradient_is_transformers_own() -> None:
    """Where nothing is left to chance: no other expert within the tolerance."""
    scores = torch.tensor([[3.0, 1.0, -2.0, 0.5], [-1.0, 5.0, 2.0, 0.1]])
    other = torch.tensor([[3.0, 2.99, 2.98, 1.0]]).requires_grad_()
    _, weights = route(scores, tolerance=0.02, training=True)
    torch.testing.assert_close(weights, torch.ones_like(weights))
    drawn = rule("heun", gate_gradient=False)
    p = torch.tensor([[0.335, 0.333, 0.332, 0.0]])
    weight = router_weight(other, p, torch.tensor([[1]]), torch.tensor([[1 / 3]]), drawn.factor)
    (found,) = torch.autograd.grad(weight.sum(), other)
    torch.testing.assert_close(found, 0.333 * (torch.tensor([[0.0, 1, 0, 0]]) - p))


def test_draws_follow_the_probabilities() -> None:
    """Two experts within the tolerance are drawn as the softmax says; one outside never."""
    n = 20_000
    scores = torch.tensor([2.0, 1.99, 1.0]).expand(n, 3)
    experts, _ = route(scores, tolerance=0.02, training=True, generator=torch.Generator().manual_seed(0))
    share = (experts[:, 0] == 0).double().mean().item()
    # Five standard deviations of n fair draws.
    assert share == pytest.approx(torch.tensor([2.0, 1.99]).softmax(0)[0].item(), abs=5 * 0.5 / n**0.5)
    assert not (experts[:, 0] == 2).any()
    assert (experts[:, 0] != experts[:, 1]).all()


def test_balance_is_1_where_all_are_chosen_alike() -> None:
    scores = torch.zeros(8, 4)
    even = torch.arange(8)[:, None] % 4
    assert balance(scores, even).item() == pytest.approx(1)
    skewed = torch.full((8, 4), -10.0)
    skewed[:, 0] = 10
    assert balance(skewed, torch.zeros(8, 1, dtype=torch.long)).item() == pytest.approx(4)
