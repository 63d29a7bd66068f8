"""Task-aware filters: linear maps behind layers that keep of a hidden state what the task needs (TED, stage I).

Only stage I and II know them; the student that is written has none.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from quant.distill.cut import Kind
from quant.distill.models import Batch

Hidden = Sequence[torch.Tensor]


class Filters(torch.nn.Module):
    """One affine map `width` -> `out` a layer. A square one begins as the identity, another at random."""

    def __init__(self, count: int, width: int, out: int, *, identity: bool = True) -> None:
        super().__init__()
        self.maps = torch.nn.ModuleList(torch.nn.Linear(width, out) for _ in range(count))
        if identity and width == out:
            for m in self.maps:
                assert isinstance(m, torch.nn.Linear)
                torch.nn.init.eye_(m.weight)
                torch.nn.init.zeros_(m.bias)

    def forward(self, hidden: Hidden) -> list[torch.Tensor]:
        return [m(h) for m, h in zip(self.maps, hidden, strict=True)]


class ClassHead(torch.nn.Module):
    """Pooler on the first token and classifier, as behind a filter in TED's code: dense, GELU, dropout, linear."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(width, width)
        self.dropout = torch.nn.Dropout(dropout)
        self.classifier = torch.nn.Linear(width, classes)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        pooled = self.dropout(functional.gelu(self.dense(hidden[:, 0])))
        logits: torch.Tensor = self.classifier(pooled)
        return logits


class WordHead(torch.nn.Module):
    """The teacher's final norm and output matrix, frozen, for the filters of teacher and student alike.

    A head a filter, as the paper has it, would be a vocabulary's matrix each: 15 times 28 M weights for the embedded
    default. Sharing the frozen one is a deviation; it also gives a narrower student's filters the teacher's width.
    """

    def __init__(self, teacher: Any) -> None:
        super().__init__()
        self.norm = copy.deepcopy(teacher.base_model.norm).requires_grad_(False)
        self.matrix = teacher.get_output_embeddings().weight.detach()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.norm(hidden), self.matrix)


class FilterStage(torch.nn.Module):
    """What stage I trains: filters and, for an encoder, a head for each; the heads are thrown away after it."""

    def __init__(self, filters: Filters, kind: Kind, teacher: Any) -> None:
        super().__init__()
        self.filters = filters
        self.heads = torch.nn.ModuleList()
        self.words: list[
            WordHead
        ] = []  # a list, so that the frozen head is no part of what is trained and saved
        if kind == "decoder":
            self.words.append(WordHead(teacher))
            return
        config = teacher.config
        for m in filters.maps:
            assert isinstance(m, torch.nn.Linear)
            self.heads.append(ClassHead(m.out_features, config.num_labels, config.hidden_dropout_prob))

    def task_losses(self, hidden: Hidden, batch: Batch, chosen: Sequence[int]) -> torch.Tensor:
        """The mean over the filters `chosen` of their heads' task loss (TED's loss of stage I)."""
        terms = []
        for i in chosen:
            filtered = self.filters.maps[i](hidden[i])
            # Of a decoder only what is predicted goes through the vocabulary's matrix.
            logits = self.words[0](batch.predictions(filtered)) if self.words else self.heads[i](filtered)
            terms.append(functional.cross_entropy(logits.float(), batch.targets()))
        return torch.stack(terms).mean()
