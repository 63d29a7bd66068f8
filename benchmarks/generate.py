"""Let a GGUF continue many prompts at once, at temperature 1: a batch of sequences through llama.cpp.

One sequence alone waits for memory at every token; PARALLEL of them share each read of the weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

PARALLEL = 32
CONTEXT = 384
LEAST_SHARE = 0.02
"""Tokens below this share of the likeliest one's probability are not drawn (min-p, arXiv 2407.01082)."""
_QUIET = llama_cpp.llama_log_callback(lambda level, text, user: None)


@dataclass
class _Sequence:
    """Tokens so far, how many of them the model wrote, and how many it has seen."""

    rng: np.random.Generator
    ids: list[int]
    written: int = 0
    seen: int = 0


def write(
    gguf: Path, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int, *, seed: int, threads: int
) -> list[str]:
    """Each prompt with at most `tokens` tokens after it, less where the model ends it itself.

    Prompt i is sampled with a generator of its own, made of (seed, i). A prompt must leave room for `tokens`
    in CONTEXT positions. Raises RuntimeError when llama.cpp cannot go on.
    """
    llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = PARALLEL * CONTEXT
    params.n_seq_max = PARALLEL
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(PARALLEL * CONTEXT, 0, 1)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    sequences = [
        _Sequence(np.random.default_rng([seed, i]), tokenizer.encode(text).ids)
        for i, text in enumerate(prompts)
    ]
    waiting = iter(sequences)
    slots: dict[int, _Sequence] = {}
    try:
        while True:
            for slot in set(range(PARALLEL)) - slots.keys():
                if (sequence := next(waiting, None)) is not None:
                    slots[slot] = sequence
            if not slots:
                return [tokenizer.decode(s.ids, skip_special_tokens=False) for s in sequences]
            _decode(context, batch, slots)
            kept = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(slots), size))
            for logits, (slot, sequence) in zip(kept, list(slots.items()), strict=True):
                token = _draw(logits, sequence.rng)
                sequence.ids.append(token)
                sequence.written += 1
                if sequence.written == tokens or llama_cpp.llama_vocab_is_eog(vocabulary, token):
                    llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context), slot, -1, -1)
                    del slots[slot]
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _decode(context: object, batch: llama_cpp.llama_batch, slots: dict[int, _Sequence]) -> None:
    """Run what each slot has not seen yet; logits are kept of each slot's last token, in their order."""
    n = 0
    for slot, sequence in slots.items():
        for position in range(sequence.seen, len(sequence.ids)):
            batch.token[n], batch.pos[n], batch.logits[n] = sequence.ids[position], position, 0
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, slot
            n += 1
        batch.logits[n - 1] = 1
        sequence.seen = len(sequence.ids)
    batch.n_tokens = n
    if llama_cpp.llama_decode(context, batch) != 0:
        raise RuntimeError("llama.cpp could not decode a batch")


def _draw(logits: NDArray[np.float32], rng: np.random.Generator) -> int:
    """One token at temperature 1, by the Gumbel trick."""
    likely = np.flatnonzero(logits >= logits.max() + np.log(LEAST_SHARE))
    return int(likely[np.argmax(logits[likely] + rng.gumbel(size=likely.size))])
