"""Who knows plain decoders only (RMSNorm, one MLP a layer, no bias) says so here, and refuses the others by name."""

from __future__ import annotations

from converters.decoder import Decoder, Experts, GegeluMlp, RoutedMlp
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
    if any(layer.sparse for layer in decoder.layers):
        return "block-sparse attention"
    if any(isinstance(layer.mlp, GegeluMlp) for layer in decoder.layers):
        return "GEGELU"
    if (decoder.embedding_scale, decoder.logit_scale) != (1, 1):
        return "an embedding and logits of other scales"
    if decoder.unused_tokens:
        return f"{len(decoder.unused_tokens)} tokens that it must never say"
    for index, layer in enumerate(decoder.layers):
        if any(weight.factors for weight in layer.handles()):
            return f"low-rank factors in layer {index}"
        if isinstance(layer.mlp, Experts):
            return f"{len(layer.mlp.experts)} experts in layer {index}"
        if isinstance(layer.mlp, RoutedMlp):
            return f"{len(layer.mlp.experts)} experts in layer {index}, chosen by the token's id"
    if decoder.norm != "rms":
        return "LayerNorm"
    return next((f"the bias {w.name}" for w in decoder.weights() if w.name.endswith("bias")), None)
