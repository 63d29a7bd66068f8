"""The gradient of a router that chooses one expert: SparseMixer (arXiv 2310.00811) and its third order (2409.12136).

A token goes to one expert D, drawn with the probabilities p = softmax(z); y = p_D E_D(x), and the loss is f(y). What
is wanted is the gradient by z of the expected loss, sum_i p_i f(p_i E_i):

    sum_i p_i df(p_i E_i)/dz  +  sum_i (f(p_i E_i) - f(0)) dp_i/dz

Backpropagation through y gives the first sum and forgets the second. Its difference f(h) - f(0), which would take a
pass for every expert, is approximated along the ray to h by gradients at multiples of h, of which one is drawn:

    euler     f'(h) h                              exact for a linear f
    midpoint  f'(h/2) h                            up to quadratic
    heun      f'(h) h / 4 + 3 f'(h/3) h / 4        up to cubic (Heun's third-order method)

So the estimate is exact for polynomials of that degree, and unbiased for no other f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

Method = Literal["conventional", "euler", "midpoint", "heun"]
EXPERTS = 2
"""Chosen for every token, one after the other."""


@dataclass(frozen=True)
class Rule:
    """`small` times h is where the gradient is taken with the probability 1 - `whole`, else at h itself; what flows
    back to the router is `factor` times the gradient of the weight."""

    small: float
    whole: float
    factor: float


def rule(method: Method, *, gate_gradient: bool) -> Rule:
    """The draw whose expectation is the method's sum.

    gate_gradient: whether the first sum above is part of it. Without it the loss is f of a weight that is held fixed,
    the objective of GRIN (2409.12136, algorithm 1) and of Phi-3.5-MoE.
    """
    if gate_gradient:
        # Twice the gradient at h or at a part of it: the first sum needs one whole, the second what is left.
        known = {
            "conventional": Rule(1, 1, 1),
            "euler": Rule(1, 1, 2),
            "midpoint": Rule(1 / 2, 1 / 2, 2),
            "heun": Rule(1 / 3, 5 / 8, 2),
        }
    else:
        known = {
            "conventional": Rule(1, 1, 0),
            "euler": Rule(1, 1, 1),
            "midpoint": Rule(1 / 2, 0, 1),
            "heun": Rule(1 / 3, 1 / 4, 1),
        }
    return known[method]


class RouterWeight(torch.autograd.Function):
    """The weight scale * p_D [n, 1] that the chosen expert's output gets; see `router_weight`."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: torch.Tensor,
        probabilities: torch.Tensor,
        chosen: torch.Tensor,
        scale: torch.Tensor,
        factor: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(probabilities, chosen)
        ctx.factor = factor
        return probabilities.gather(-1, chosen) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        probabilities, chosen = ctx.saved_tensors
        # dp_D/dz_j = p_D (1{j = D} - p_j), and no scale: the ray's length is the whole h.
        passed = gradients[0] * probabilities.gather(-1, chosen) * ctx.factor
        by_score = (-passed * probabilities).scatter_add(-1, chosen, passed)
        return by_score, None, None, None, None


def router_weight(
    scores: torch.Tensor,
    probabilities: torch.Tensor,
    chosen: torch.Tensor,
    scale: torch.Tensor,
    factor: float,
) -> torch.Tensor:
    """scale * p_chosen, [n, 1], whose gradient by `scores` is factor * dp_chosen, whatever the scale.

    scores: [n, experts]; probabilities: their (masked) softmax; chosen: int64 [n, 1]; scale: [n, 1], 1 or less.
    The expert's own gradient is that of the forward pass, scale included, as in the published code.
    """
    weight: torch.Tensor = RouterWeight.apply(scores, probabilities, chosen, scale, factor)  # type: ignore[no-untyped-call]
    return weight


def masked(scores: torch.Tensor, left: torch.Tensor, tolerance: float) -> torch.Tensor:
    """softmax of `left` (scores, -inf where an expert is taken) without those further from the best than `tolerance`
    of the larger of the two sizes: what `converters.routing.sparsemixer` computes."""
    top = left.max(dim=-1, keepdim=True).values
    far = (top - scores) / torch.maximum(scores.abs(), top) > tolerance
    return left.masked_fill(far, -torch.inf).softmax(dim=-1)


def route(
    scores: torch.Tensor,
    *,
    tolerance: float,
    training: bool,
    method: Method = "heun",
    gate_gradient: bool = False,
    best_is_whole: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which two experts, int64 [n, 2], and their weights [n, 2], from a router's scores [n, experts].

    At inference the best two, as PhiMoE chooses; in training each is drawn, and the weights carry the gradient of
    `method`. best_is_whole: the best expert's gradient is always taken at h, as published; it makes training calmer
    and the estimate biased.
    """
    drawn = rule(method, gate_gradient=gate_gradient)
    left = scores
    experts, weights = [], []
    for _ in range(EXPERTS):
        with torch.no_grad():
            probabilities = masked(scores, left, tolerance)
        best = left.argmax(dim=-1, keepdim=True)
        if training:
            chosen = torch.multinomial(probabilities, 1, generator=generator)
            draw = torch.rand(chosen.shape, generator=generator) < drawn.whole
            whole = draw | (chosen == best) if best_is_whole else draw
            scale = torch.where(whole, 1.0, drawn.small).to(scores.dtype)
            weights.append(router_weight(scores, probabilities, chosen, scale, drawn.factor))
        else:
            chosen = best
            weights.append(probabilities.gather(-1, chosen))
        experts.append(chosen)
        left = left.scatter(-1, chosen, -torch.inf)
    return torch.cat(experts, dim=-1), torch.cat(weights, dim=-1)


def balance(scores: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """n sum_i f_i mean(softmax(z)_i) over the tokens: 1 where all experts are chosen alike (2409.12136, eq. 5).

    scores: [n, experts]; experts: int64 [n, k]. f: the share of choices that fall on an expert.
    """
    count = scores.shape[-1]
    chosen = torch.bincount(experts.flatten(), minlength=count).to(scores.dtype) / experts.numel()
    return count * (chosen * scores.softmax(dim=-1).mean(dim=0)).sum()
