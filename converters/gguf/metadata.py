"""The key-value part of a GGUF, but for the tokenizer.

Keys and meanings: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and src/llama-model.cpp
(`load_hparams`) for what is read.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGUFType, GGUFWriter, LlamaFileType, RopeScalingType

from converters.decoder import Decoder, Experts
from converters.gguf.layout import Tensor
from converters.gguf.limits import CONTEXT_STEP

_FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "int4": LlamaFileType.MOSTLY_Q4_0,
    "int4_asym": LlamaFileType.MOSTLY_Q4_1,
    "int5": LlamaFileType.MOSTLY_Q5_0,
    "int8": LlamaFileType.MOSTLY_Q8_0,
}
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LICENSE = re.compile(r"^license:\s*[\"']?([A-Za-z0-9._-]+)[\"']?\s*$", re.MULTILINE)
_MODEL_CARD_BYTES = 1 << 20


def add_general(out: GGUFWriter, layout: list[Tensor], *, name: str, checkpoint_directory: Path) -> None:
    out.add_type(GGUFType.MODEL)
    out.add_name(name)
    if licence := _licence(checkpoint_directory):
        out.add_license(licence)
    values: Counter[str] = Counter()
    for tensor in layout:
        values[tensor.storage] += tensor.nbytes
    out.add_file_type(_FILE_TYPES[values.most_common(1)[0][0]])
    if any(storage.startswith("int") for storage in values):
        out.add_quantization_version(GGML_QUANT_VERSION)


def add_shape(out: GGUFWriter, decoder: Decoder, *, context_length: int) -> None:
    """Sizes, norm, attention and rope.

    `context_length` is the capped one: an application that asks for nothing gets it. Where the engine would
    round it up past the original context (it allocates in steps of 256; all published models are multiples),
    the original context is written rounded up too: it only decides between short and long factors.
    """
    attention, rope = decoder.attention, decoder.rope
    allocated = -(-context_length // CONTEXT_STEP) * CONTEXT_STEP
    out.add_context_length(context_length)
    out.add_embedding_length(decoder.hidden_size)
    out.add_block_count(len(decoder.layers))
    out.add_feed_forward_length(decoder.intermediate_size)
    out.add_vocab_size(decoder.vocab_size)
    out.add_head_count(attention.heads)
    out.add_head_count_kv(attention.kv_heads)
    out.add_key_length(attention.head_dim)
    out.add_value_length(attention.head_dim)
    out.add_layer_norm_rms_eps(decoder.norm_eps)
    # 0 says that there is none; a missing key makes older loaders assume one.
    out.add_sliding_window(attention.window or 0)
    out.add_rope_dimension_count(rope.dim)
    out.add_rope_freq_base(rope.theta)
    original = rope.original_context
    if rope.is_longrope:
        original = max(original, allocated)
        out.add_rope_scaling_type(RopeScalingType.LONGROPE)
    out.add_rope_scaling_orig_ctx_len(original)
    out.add_rope_scaling_attn_factors(rope.attention_factor)
    mlp = decoder.layers[0].mlp
    if isinstance(mlp, Experts):
        out.add_expert_count(len(mlp.experts))
        out.add_expert_used_count(2)


def _licence(directory: Path) -> str | None:
    """SPDX-like identifier from the front matter of the model card, if there is one."""
    card = directory / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        matter = _FRONT_MATTER.match(file.read(_MODEL_CARD_BYTES))
    found = _LICENSE.search(matter[1]) if matter else None
    return found[1] if found else None
