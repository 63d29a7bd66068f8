"""What a hybrid decoder keeps of the tokens that it has read."""

from __future__ import annotations

from converters.hybrid import DifferentialAttention, HybridDecoder, Mamba
from converters.onnx.genai_config import CACHE_SLACK, windowed_layers


def cache_bytes(decoder: HybridDecoder, context_length: int) -> int:
    """Of an ONNX folder: keys and values in float32, twice as wide as the heads are, of the whole context in the
    layers without a window; and the states, which do not grow."""
    windows = set(windowed_layers(decoder, context_length))
    position = 4 * 2 * decoder.attention.kv_heads * 2 * decoder.attention.head_dim
    total = 0
    for index, block in enumerate(decoder.blocks):
        mixer = block.mixer
        if isinstance(mixer, Mamba):
            total += 4 * mixer.width * (mixer.states + mixer.taps - 1)
        elif isinstance(mixer, DifferentialAttention) and mixer.k is not None:
            kept = (mixer.window or 0) + CACHE_SLACK if index in windows else context_length
            total += position * min(kept, context_length)
    return total
