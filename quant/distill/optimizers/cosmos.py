"""COSMOS (Liu et al. 2025, arXiv 2502.17410): SOAP on a gradient's leading directions, Muon on the rest.

For a weight W [m, n] with gradient G, momentum M, and an orthonormal basis U [n, r] of the r leading eigenvectors of
the running mean of G'G, of which S = U' H U [r, r] is kept instead of H itself:

    M = b1 M + (1 - b1) G
    H = b2 U S U' + (1 - b2) G'G           never formed: only H times thin matrices is needed
    U = QR(H U);  S = U' H U               with the new U: one step of power iteration
    V = b2 V + (1 - b2) (G U)^2            [m, r]
    A = ((M U / (1 - b1^t)) / (sqrt(V / (1 - b2^t)) + eps)) U'
    B = NORM(NS5((M - M U U') / |M - M U U'|))
    W = W - rate NORM(A + gamma sqrt(m) B) sqrt(m),   NORM(X) = sqrt(n) X / |X|, norms of Frobenius

so a step's root mean square is the rate. The state is m n + n r + r r + m r numbers, Adam's 2 m n. Vectors and
embeddings, whose rows are seen one at a time, are given to AdamW, as the paper does.

These are the equations of the paper's algorithm 1, but for eps, which it adds to V and its code to the root, as here.
The code's Nesterov option is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of Muon's quintic: five steps take singular values from (0, 1] to about 1 (0.7 to 1.2)."""
TINY, ROUNDING = 1e-12, 1e-5


class Cosmos(torch.optim.Optimizer):
    """Parameter groups with `rank` > 0 hold matrices for COSMOS, groups with rank 0 anything, for AdamW.

    rank: r above, at most m and n are used. gamma: weight of the part that is Muon's. betas, eps and weight_decay
    (decoupled) as AdamW's.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        rate: float,
        rank: int = 64,
        gamma: float = 0.25,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        common = {"lr": rate, "rank": rank, "gamma": gamma, "betas": betas}
        super().__init__(groups, common | {"eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                direction = cosmos_direction if group["rank"] else adam_direction
                parameter.sub_(direction(parameter.grad, state, group), alpha=group["lr"])
        return loss


def cosmos_direction(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    """The step [m, n] at rate 1, of root mean square 1 (0 where all gradients were 0); updates `state`."""
    (b1, b2), (rows, columns) = group["betas"], gradient.shape
    rank = min(group["rank"], rows, columns)
    if "basis" not in state:
        _begin(gradient, state, rank, b2)
    else:
        _turn(gradient, state, b2)
    momentum, basis, second = state["momentum"], state["basis"], state["second"]
    momentum.lerp_(gradient, 1 - b1)
    second.lerp_((gradient @ basis).square(), 1 - b2)
    inside = momentum @ basis
    scale = (second / (1 - b2 ** state["step"])).sqrt() + group["eps"]
    step = (inside / (1 - b1 ** state["step"]) / scale) @ basis.T
    outside = momentum - inside @ basis.T
    # Of what lies in the basis whole, what is left outside is rounding, which NORM would blow up to full size.
    real = outside.norm() > ROUNDING * momentum.norm()
    step += group["gamma"] * math.sqrt(rows) * _normed(newton_schulz(outside * real))
    found: torch.Tensor = _normed(step) * math.sqrt(rows)
    return found


def newton_schulz(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About the nearest semi-orthogonal matrix to x [m, n] / |x|: its singular values become about 1."""
    a, b, c = NEWTON_SCHULZ
    wide: torch.Tensor = x.T if len(x) > x.shape[1] else x
    wide = wide / wide.norm().clamp_min(TINY)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if len(x) > x.shape[1] else wide


def adam_direction(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    """Adam's step at rate 1 (Kingma and Ba 2015, algorithm 1); updates `state`."""
    b1, b2 = group["betas"]
    if "momentum" not in state:
        state["momentum"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - b1) / (1 - b1 ** state["step"])
    second = state["second"].lerp_(gradient.square(), 1 - b2) / (1 - b2 ** state["step"])
    found: torch.Tensor = momentum / (second.sqrt() + group["eps"])
    return found


def _begin(gradient: torch.Tensor, state: dict[str, Any], rank: int, b2: float) -> None:
    """The basis from the first gradient alone, by a singular value decomposition."""
    _, _, right = torch.linalg.svd(gradient, full_matrices=False)
    basis = right[:rank].T.contiguous()
    projected = gradient @ basis
    state["basis"], state["inner"] = basis, (1 - b2) * projected.T @ projected
    state["momentum"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(projected)


def _turn(gradient: torch.Tensor, state: dict[str, Any], b2: float) -> None:
    """U and S after one more gradient."""
    old, inner = state["basis"], state["inner"]
    basis, _ = torch.linalg.qr(b2 * old @ inner + (1 - b2) * gradient.T @ (gradient @ old))
    overlap, projected = old.T @ basis, gradient @ basis
    state["inner"] = b2 * overlap.T @ inner @ overlap + (1 - b2) * projected.T @ projected
    state["basis"] = basis


def _normed(x: torch.Tensor) -> torch.Tensor:
    """NORM above: the Frobenius norm becomes the square root of the number of columns."""
    found: torch.Tensor = x * (math.sqrt(x.shape[1]) / x.norm().clamp_min(TINY))
    return found


def kept(rows: int, columns: int, rank: int) -> int:
    """Numbers of state for a matrix [rows, columns]: momentum, basis, S and V. AdamW keeps 2 rows columns."""
    rank = min(rank, rows, columns)
    return rows * columns + columns * rank + rank * rank + rows * rank
