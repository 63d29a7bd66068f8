"""Tiny decoders that learn bytes of the calibration text, from scratch: what the optimizers' benchmarks train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from quant.distill.training import Report, TrainOptions, sample, train

TEXT = Path(__file__).parents[1] / "quant" / "calibration.txt"
LENGTH, BATCH, HEAD = 64, 8, 16
LAST = 10
"""Steps whose mean loss, each on text not seen before, is what a run is judged by."""


def decoder(width: int, layers: int = 2, seed: int = 0) -> Any:
    """A Phi-3 of bytes with muP's weights at the start (arXiv 2203.03466, table 3): hidden matrices 1 / sqrt(inputs),
    the output matrix 1 / width; heads of one size, so that attention needs no other scale."""
    torch.manual_seed(seed)
    config = Phi3Config(
        vocab_size=256, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=width // HEAD, num_key_value_heads=width // HEAD, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation="sdpa",
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** (-1.0 if "lm_head" in name else -0.5))
    return model


def learn(model: Any, optimizer: torch.optim.Optimizer, steps: int, *, skipped: int = 0) -> float:
    """Train on windows of the text, each once, without those of the first `skipped` steps; returns the mean loss of
    the last steps in nats a byte."""
    data = np.frombuffer(TEXT.read_bytes(), np.uint8).astype(np.int64)
    windows = torch.from_numpy(data[: len(data) // LENGTH * LENGTH].reshape(-1, LENGTH))
    assert (skipped + steps) * BATCH <= len(windows), "no window is seen twice"
    seen: list[float] = []

    def order(step: int) -> torch.Tensor:
        return windows[torch.from_numpy(sample(0, skipped + step, len(windows), BATCH))]

    def losses(ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": model(input_ids=ids, labels=ids, use_cache=False).loss}

    def report(told: Report) -> None:
        seen.append(told.loss)

    options = TrainOptions(steps=steps, warm_up=steps // 10)
    train(model, optimizer, order, losses, options, report=report)
    return float(np.mean(seen[-LAST:]))
