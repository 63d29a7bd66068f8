"""What llama.cpp cannot load or would run wrongly, found before anything is written.

Read in the llama.cpp that llama-cpp-python 0.3.36 carries: src/models/phi3.cpp, src/llama-model.cpp
(`get_rope_factors`), src/llama-context.cpp; tests/converters/test_gguf_writer*.py holds it to that.
"""

from __future__ import annotations

import math

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.gguf.layout import tensors
from converters.plain import require_plain
from converters.writer import Storages

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS, src/llama-hparams.h."""
CONTEXT_STEP = 256
"""A context is allocated in steps of so many positions (src/llama-context.cpp: GGML_PAD(n_ctx, 256))."""


def context_limit(decoder: Decoder) -> tuple[int, str | None]:
    """Longest context in which llama.cpp is right, in tokens, and why if that is less than the model's own.

    The engine rounds a context up to a multiple of 256, so whoever runs the file must count for itself: the
    window of 2047 gets room for 2048. `edge.runtimes` does.
    """
    limit, reason = decoder.context_length, None
    rope, window = decoder.rope, decoder.attention.window
    if rope.is_longrope and rope.original_context < limit:
        limit = rope.original_context
        reason = (
            f"llama.cpp picks the LongRoPE factors by the size of the context and not by the length of the "
            f"text: with room for more than {limit} tokens, shorter texts would come out wrong"
        )
    if window is not None and window < limit:
        limit = window
        reason = (
            f"llama.cpp has the sliding window of this architecture switched off: past {limit} tokens the model "
            f"would see what it must not see"
        )
    return limit, reason


def check(decoder: Decoder, recipe: Storages) -> None:
    """Raise UnsupportedError, which names the figure or the weight, for what llama.cpp's `phi3` cannot hold, nor
    `phimoe` with the weights rewritten (`converters.gguf.phimoe`)."""
    if decoder.has_experts:
        _check_experts(decoder)
    else:
        require_plain(decoder, "llama.cpp's phi3", "convert it for the CPU: --target cpu")
    attention, rope = decoder.attention, decoder.rope
    if attention.heads * attention.head_dim != decoder.hidden_size:
        raise _refuse(
            f"{attention.heads} heads of {attention.head_dim} are {attention.heads * attention.head_dim} wide, "
            f"llama.cpp wants the hidden size {decoder.hidden_size}"
        )
    if attention.heads % attention.kv_heads:
        raise _refuse(f"{attention.kv_heads} key-value heads do not divide {attention.heads} heads")
    if rope.dim % 2 or not 0 < rope.dim <= attention.head_dim:
        raise _refuse(f"rotary size {rope.dim} is odd, or not within the head size {attention.head_dim}")
    if not math.isclose(attention.scale, attention.head_dim**-0.5, rel_tol=1e-6):
        raise _refuse(f"attention is scaled by {attention.scale:g}, llama.cpp always takes 1/sqrt(head size)")
    if len(decoder.layers) > MAX_LAYERS:
        raise _refuse(f"{len(decoder.layers)} layers, llama.cpp takes {MAX_LAYERS}")
    tensors(decoder, recipe.storage)


def _check_experts(decoder: Decoder) -> None:
    """Of `phimoe`: what would come out as another model, not as one nearly right."""
    if decoder.rope.dim != decoder.attention.head_dim:
        raise _refuse(
            f"{decoder.rope.dim} of {decoder.attention.head_dim} channels turn, llama.cpp turns all"
        )
    if decoder.tied:
        raise _refuse(
            "embedding and lm_head are one, and only the embedding may be centred for llama.cpp's RMSNorm"
        )
    if decoder.adapters:
        raise _refuse(
            f"adapter {decoder.adapters[0].name} would write into a residual stream that must stay centred"
        )


def _refuse(cause: str) -> UnsupportedError:
    return UnsupportedError(f"no GGUF: {cause}", hint="convert to ONNX instead: --target cpu")
