"""Who knows plain decoders only (RMSNorm, one MLP a layer, no bias) says so here, and refuses the others by name."""

from __future__ import annotations

from converters.decoder import Decoder, Experts
from converters.errors import UnsupportedError
from converters.hybrid import HybridDecoder


def require_plain(decoder: Decoder, where: str, hint: str) -> None:
    """UnsupportedError that names the first thing of `decoder` that `where` would leave out of its computation."""
    if (found := _beyond(decoder)) is not None:
        raise UnsupportedError(
            f"{decoder.architecture} has {found}, and {where} has no place for it", hint=hint
        )


def _beyond(decoder: Decoder) -> str | None:
    if isinstance(decoder, HybridDecoder):
        return "state space layers and differential attention"
    for index, layer in enumerate(decoder.layers):
        if isinstance(layer.mlp, Experts):
            return f"{len(layer.mlp.experts)} experts in layer {index}"
    if decoder.norm != "rms":
        return "LayerNorm"
    return next((f"the bias {w.name}" for w in decoder.weights() if w.name.endswith("bias")), None)
