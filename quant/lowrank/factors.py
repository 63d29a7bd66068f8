"""W = B A + S (LoSparse, arXiv 2306.11222, eq. 3): thin factors, and a matrix of which rows are pruned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from quant.adapters.loftq import best_approximation
from quant.lowrank.names import LINEAR, rank_of


class FactoredLinear(nn.Module):
    """y = b (a x) + s x. At first exactly the layer that it was made of: b a is W's truncated SVD, s the rest."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        halves = best_approximation(weight.detach().float().numpy(), rank)
        self.low_rank_a, self.low_rank_b = (nn.Parameter(torch.from_numpy(half)) for half in halves)
        # Of the rounded factors, so that the sum is W to the last bits.
        product = self.low_rank_b.double() @ self.low_rank_a.double()
        self.sparse = nn.Parameter((weight.double() - product).float().detach())

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.low_rank_a), self.low_rank_b) + linear(x, self.sparse)


def factor(model: nn.Module, share: float) -> dict[str, FactoredLinear]:
    """Replace the linear layers of a Phi-3 model's layers; by name. Embeddings and lm_head stay, as in the paper."""
    found = {}
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if own in LINEAR and isinstance(module, nn.Linear):
            out, columns = module.weight.shape
            factored = FactoredLinear(module.weight, rank_of(out, columns, share))
            setattr(model.get_submodule(parent), own, factored)
            found[name] = factored
    return found


def compact(name: str, module: FactoredLinear) -> Mapping[str, Tensor]:
    """The tensors of `converters.models.phi3_losparse`: rows with any value that is not zero, then a row of zeros.

    (By "any": a row whose values cancel in their sum is no row of zeros.)
    """
    sparse = module.sparse.detach()
    kept = (sparse != 0).any(1)
    rows = torch.full((len(sparse),), int(kept.sum()), dtype=torch.float32)
    rows[kept] = torch.arange(int(kept.sum()), dtype=torch.float32)
    return {
        f"{name}.low_rank_a": module.low_rank_a.detach(),
        f"{name}.low_rank_b": module.low_rank_b.detach(),
        f"{name}.sparse": torch.cat([sparse[kept], torch.zeros(1, sparse.shape[1])]),
        f"{name}.sparse_rows": rows,
    }
