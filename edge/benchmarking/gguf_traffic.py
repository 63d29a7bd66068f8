"""What a token reads of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from converters.gguf.reader import Gguf
from edge.benchmarking.traffic import Traffic

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_LOOKED_UP = ("token_types.weight", "position_embd.weight")


def gguf_traffic(file: Path, kv_type: str) -> Traffic:
    """`kv_type`: ggml's name of the type of keys and values, in lower case. Raises what `Gguf.open` raises."""
    with Gguf.open(file) as gguf:
        arch = f"{gguf.metadata.get('general.architecture')}."
        facts = {k.removeprefix(arch): v for k, v in gguf.metadata.items() if k.startswith(arch)}
        experts = int(facts.get("expert_used_count", 1)) / max(1, int(facts.get("expert_count", 1)))
        weights = 0.0
        for name, tensor in gguf.tensors.items():
            if name in _LOOKED_UP or (name == _EMBEDDING and _HEAD in gguf.tensors):
                weights += tensor.row_bytes
            else:
                weights += tensor.nbytes * (experts if "_exps." in name else 1)
        return Traffic(round(weights), _cache_bytes(facts, kv_type), None, file.stat().st_size)


def _cache_bytes(facts: Mapping[str, Any], kv_type: str) -> int:
    """Keys and values of one position; llama.cpp attends over all positions whatever the model's window."""
    heads = facts.get("attention.head_count", 1)
    size = int(facts.get("embedding_length", 0)) // max(
        1, max(heads) if isinstance(heads, list) else int(heads)
    )
    both = int(facts.get("attention.key_length", size)) + int(facts.get("attention.value_length", size))
    kv_heads = facts.get("attention.head_count_kv", heads)
    total = sum(kv_heads) if isinstance(kv_heads, list) else int(kv_heads) * int(facts.get("block_count", 0))
    block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[kv_type.upper()]]
    return int(total) * both * int(nbytes) // int(block)
