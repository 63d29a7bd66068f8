"""Which MLP neurons a loss depends on (MoEBERT, arXiv 2204.07675, eq. 4), for a whole batch in one backward pass.

    I_j = sum over samples of | <w1_j, dL/dw1_j> + <w2_j, dL/dw2_j> |

w1_j: what neuron j reads with (of SwiGLU both rows, gate and up), w2_j: what it writes with; no biases. The inner
products need no gradient of a weight: with z = W1 x + b1 and y = W2 a, <w1_j, dL/dw1_j> is the sum over tokens of
(z_j - b1_j) dL/dz_j and <w2_j, dL/dw2_j> that of a_j dL/da_j. Tokens belong to samples, so one backward of the SUM of
the samples' losses gives every sample its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from quant.distill.cut import Kind
from quant.distill.models import Batch, Examples, freeze, layers_of


def importance(
    model: Any,
    kind: Kind,
    examples: Examples,
    *,
    batch: int = 8,
    most: int = 0,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[Any]:
    """I, float64 [layers, neurons], over `examples`: `most` of them, evenly spaced (0: all). `model` is left frozen
    and on `device`.

    A sample is a labelled text, or a window of words, whose loss is the mean over its tokens. `advance` is told how
    many more are done.
    """
    freeze(model.to(device))
    count = len(examples.ids)
    chosen = np.unique(np.linspace(0, count - 1, min(count, most or count)).round().astype(np.int64))
    total: NDArray[Any] | None = None
    for start in range(0, len(chosen), batch):
        some = chosen[start : start + batch]
        found = sample_importance(model, kind, examples.batch(some, device)).sum(1)
        total = found if total is None else total + found
        advance(len(some))
    assert total is not None, "examples are never none"
    return total


def sample_importance(model: Any, kind: Kind, batch: Batch) -> NDArray[Any]:
    """The absolute value for each sample, float64 [layers, batch, neurons]."""
    with _watched(model, kind) as (read, written):
        extra = {} if kind == "encoder" else {"use_cache": False}
        logits = model(input_ids=batch.ids, attention_mask=batch.mask.long(), **extra).logits
        sample_losses(logits, batch).sum().backward()  # type: ignore[no-untyped-call]
    layers = []
    for (z, bias), a in zip(read, written, strict=True):
        assert z.grad is not None
        assert a.grad is not None
        first = (z.detach() - bias) * z.grad
        # Rows of gate and then of up; a plain MLP has one of them for each neuron.
        parts = first.double().sum(1).reshape(len(a), -1, a.shape[-1]).sum(1)
        layers.append((parts + (a.detach() * a.grad).double().sum(1)).abs())
    return torch.stack(layers).cpu().numpy()


def sample_losses(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """[batch]: cross-entropy of each label, or its mean over each window's next tokens."""
    if batch.labels is not None:
        return functional.cross_entropy(logits, batch.labels, reduction="none")
    mask = batch.mask[:, 1:]
    each = functional.cross_entropy(logits[:, :-1].transpose(1, 2), batch.ids[:, 1:], reduction="none")
    return (each * mask).sum(1) / mask.sum(1)


def mlp_ends(layer: Any, kind: Kind) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """The matrix that the MLP of a layer reads with, and the one it writes with."""
    if kind == "decoder":
        return layer.mlp.gate_up_proj, layer.mlp.down_proj
    return layer.intermediate.dense, layer.output.dense


Read = tuple[torch.Tensor, torch.Tensor | float]


@contextmanager
def _watched(model: Any, kind: Kind) -> Iterator[tuple[Sequence[Read], Sequence[torch.Tensor]]]:
    """What every layer's first matrix gave (with its bias) and what its second took, gradients kept, in the lists."""
    read: list[Read] = []
    written: list[torch.Tensor] = []

    def keep_read(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        read.append((output, 0.0 if module.bias is None else module.bias.detach()))

    def keep_written(module: Any, inputs: tuple[torch.Tensor]) -> None:
        inputs[0].retain_grad()
        written.append(inputs[0])

    def begin(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.requires_grad_()  # no weight does, so that none gets a gradient

    hooks = [model.get_input_embeddings().register_forward_hook(begin)]
    for layer in layers_of(model):
        first, second = mlp_ends(layer, kind)
        hooks.append(first.register_forward_hook(keep_read))
        hooks.append(second.register_forward_pre_hook(keep_written))
    try:
        yield read, written
    finally:
        for hook in hooks:
            hook.remove()
