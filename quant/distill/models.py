"""What distillation sees of a transformers model: its layers, their outputs, its predictions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from quant.distill.cut import Kind
from quant.distill.quiet import quiet
from quant.lowrank.model import is_factored, load


@dataclass(frozen=True)
class Examples:
    """Token ids int64 [n, length], which of them are no padding, bool [n, length], and for an encoder int64 [n]."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None

    def batch(self, indices: NDArray[np.int64], device: str = "cpu") -> Batch:
        """The examples at `indices`, cut to the longest of them."""
        mask = self.mask[indices]
        length = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
        labels = None if self.labels is None else torch.from_numpy(self.labels[indices]).to(device)
        ids = torch.from_numpy(self.ids[indices][:, :length]).to(device)
        return Batch(ids, torch.from_numpy(mask[:, :length]).to(device), labels)


@dataclass(frozen=True)
class Batch:
    """ids int64 [batch, length], mask bool [batch, length], labels int64 [batch] or None for next-token prediction."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor | None

    def targets(self) -> torch.Tensor:
        """What is to be predicted, int64 [predictions]: the labels, or every token after the first."""
        return self.ids[:, 1:][self.mask[:, 1:]] if self.labels is None else self.labels

    def predictions(self, values: torch.Tensor) -> torch.Tensor:
        """[predictions, ..] out of logits [batch, classes], or of anything at each position [batch, length, ..]."""
        return values[:, :-1][self.mask[:, 1:]] if self.labels is None else values


def load_model(directory: Path, kind: Kind, names: Sequence[str] = ()) -> Any:
    """The checkpoint as a transformers model in float32. safetensors only, no code of the checkpoint's, no network.

    names: of the classes of a new head, for an encoder that has none; its weights come from torch's generator.
    """
    quiet()
    if is_factored(directory):
        return load(directory)
    head = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    auto = AutoModelForCausalLM if kind == "decoder" else AutoModelForSequenceClassification
    return auto.from_pretrained(
        directory,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation="sdpa",
        **(head if names else {}),
    )


def new_model(config: Any, kind: Kind, changes: dict[str, Any]) -> Any:
    """A model with a transformers `config` and `changes`; its weights are still to be filled in."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        setattr(config, key, value)
    auto = AutoModelForCausalLM if kind == "decoder" else AutoModelForSequenceClassification
    return auto.from_config(config, dtype=torch.float32, attn_implementation="sdpa")  # type: ignore[no-untyped-call]


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The repeated layers, in order of their depth."""
    base = model.base_model
    found = base.layers if hasattr(base, "layers") else base.encoder.layer
    assert isinstance(found, torch.nn.ModuleList)
    return found


def forward(model: Any, batch: Batch, kept: Sequence[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and the outputs [batch, length, hidden] of the layers `kept`, before any norm that follows them.

    transformers' own `hidden_states` have the final norm in the last one, so these are taken from the layers.
    """
    found: dict[int, torch.Tensor] = {}
    layers = layers_of(model)

    def keep(index: int) -> Any:
        def hook(module: object, inputs: object, output: Any) -> None:
            found[index] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [layers[i].register_forward_hook(keep(i)) for i in kept]
    try:
        extra = {"use_cache": False} if batch.labels is None else {}
        logits = model(input_ids=batch.ids, attention_mask=batch.mask.long(), **extra).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits, [found[i] for i in kept]


def freeze(model: torch.nn.Module) -> None:
    """No gradients, no dropout."""
    model.requires_grad_(False)
    model.eval()
