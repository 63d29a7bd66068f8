"""What the tests of Phi-3.5-MoE share: transformers as the oracle, and checkpoints with weights of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import PhimoeForCausalLM
from transformers.modeling_rope_utils import _compute_longrope_parameters

from benchmarks.moe_shapes import MOE_SHAPES
from converters.decoder import Decoder, Weight

TINY = [name for name in MOE_SHAPES if not name.endswith("-full")]
Values = Callable[[Weight], NDArray[np.float32]]


def oracle(
    directory: Path, ids: Sequence[int], *, last: int = 0, trained_factors: bool = False
) -> NDArray[np.float32]:
    """transformers' float32 logits of the last `last` positions (0: all).

    `trained_factors`: with the rotary factors of the length, which transformers 5.23 forgets to pass on.
    """
    torch.set_num_threads(1)
    model = PhimoeForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    if trained_factors:
        rotary = model.model.rotary_emb
        rotary.rope_init_fn = partial(_compute_longrope_parameters, seq_len=len(ids))
    with torch.no_grad():
        out = model(torch.tensor([list(ids)]), use_cache=False, logits_to_keep=last)
    return np.asarray(out.logits[0].numpy())


def rewritten(source: Path, target: Path, decoder: Decoder, values: Values) -> Path:
    """The checkpoint `source` in `target` with these values for its weights, whole tensors in float32."""
    shutil.copytree(source, target)
    tensors = {}
    for weight in decoder.weights():
        (part,) = weight.parts
        tensors[part.tensor] = np.ascontiguousarray(values(weight))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target
