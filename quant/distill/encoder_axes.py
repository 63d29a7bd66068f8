"""What the axes of a BERT's tensors run over: for cuts that keep some of each. No torch here."""

from __future__ import annotations

from typing import Literal

Axis = Literal["channels", "heads", "neurons", "all"]
"""The residual stream; all heads' values, head by head; an MLP's inside; what no cut touches."""
NARROWED = ("bert", "roberta", "xlm-roberta")
"""Model types with these tensors."""


def axes(name: str) -> tuple[Axis, Axis]:
    """(rows, columns) of a weight; a bias and a norm have the rows alone."""
    part = name.removesuffix(".weight").removesuffix(".bias")
    if part.endswith(("attention.self.query", "attention.self.key", "attention.self.value")):
        return "heads", "channels"
    if part.endswith("attention.output.dense"):
        return "channels", "heads"
    if part.endswith("intermediate.dense"):
        return "neurons", "channels"
    if part.endswith("output.dense"):
        return "channels", "neurons"
    if part.endswith(("_embeddings", "classifier", "out_proj")):
        return "all", "channels"
    return "channels", "channels"
