"""Which optimizer steps which weight, and how far: the parameter groups of a training.

muP (Yang et al. 2022, arXiv 2203.03466, table 3): with Adam, the best learning rate of a weight that is multiplied with
a whole hidden vector falls as 1 / width; that of embeddings, norms and biases stays. So a rate that was found at
`base_width` is multiplied by base_width / width for matrices and for the output matrix, and is good at `width` too.
muP's other rules are about the weights at the start and about multipliers, and a student that inherits its teacher's
weights has these already; they are left out, and with them the promise: what stays is that a step changes activations
by as much at every width. A tied matrix is an embedding and an output at once, and follows the output's rule, without
which its steps' effect on the logits would grow with the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from quant.distill.optimizers.cosmos import Cosmos

Name = Literal["adamw", "cosmos"]
RANK, RANK_SHARE, GAMMA = 64, 8, 0.25
"""COSMOS: leading directions, at most a RANK_SHAREth of the width (a twelfth in the paper's smallest model); weight of
the rest, and with it the rate of the matrices as a share of AdamW's for the embeddings (the paper ties the two)."""


@dataclass(frozen=True)
class Optimizing:
    """rate: peak learning rate. base_width: hidden size at which it was found (0: this one; AdamW only)."""

    rate: float
    name: Name = "adamw"
    base_width: int = 0


def make_optimizer(parts: torch.nn.Module, model: Any, options: Optimizing) -> torch.optim.Optimizer:
    """For what of `parts` requires gradients; `model`, a transformers model, is the part with the embeddings."""
    width = int(model.config.hidden_size)
    outputs = {id(p) for layer in output_layers(model) for p in layer.parameters()}
    embeddings = {id(p) for m in parts.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    wanted = [p for p in parts.parameters() if p.requires_grad]
    matrices = [p for p in wanted if p.ndim == 2 and id(p) not in outputs | embeddings]
    if options.name == "cosmos":
        chosen = {id(p) for p in matrices}
        rest = [p for p in wanted if id(p) not in chosen]
        rank = max(1, min(RANK, width // RANK_SHARE))
        groups = [
            {"params": matrices, "rank": rank, "lr": GAMMA * options.rate},
            {"params": rest, "rank": 0},
        ]
        return Cosmos([g for g in groups if g["params"]], rate=options.rate, gamma=GAMMA)
    scaled = {id(p) for p in matrices} | {id(p) for p in wanted if p.ndim == 2 and id(p) in outputs}
    groups = [{"params": wanted}]
    if options.base_width:
        groups = [
            {
                "params": [p for p in wanted if id(p) in scaled],
                "lr": options.rate * options.base_width / width,
            },
            {"params": [p for p in wanted if id(p) not in scaled]},
        ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=options.rate, weight_decay=0.0, fused=True
    )


def output_layers(model: Any) -> list[torch.nn.Linear]:
    """What makes the logits: a decoder's output matrix, or the last linear layer of a classifier (of each head)."""
    found = model.get_output_embeddings()
    if found is not None:
        return [found]
    linear = (m for m in model.classifier.modules() if isinstance(m, torch.nn.Linear))
    return [m for m in linear if m.out_features == model.config.num_labels]
