"""The independent float32 evaluator of a Multimodal: features in their places, then the decoder with its adapter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.checkpoint import Checkpoint
from converters.forward import Floats
from converters.multimodal import Multimodal
from converters.reference import Streamed, Transform, decode


def logits(
    checkpoint: Checkpoint,
    model: Multimodal,
    ids: Sequence[int],
    *,
    image_features: Floats | None = None,
    audio_features: Floats | None = None,
    last: int | None = None,
    transform: Transform | None = None,
) -> Floats:
    """Logits after the `last` ones (default: all) of `ids`, float32 [last, vocab_size].

    Features [n, hidden] go, in order, to the places of their kind in `ids`: an encoder's token_id, or where it has
    none any negative id. The adapter is `vision` where there are images, `speech` where there is speech alone.
    ValueError when places and features differ in number. `transform` as in `converters.reference.logits`; it maps the
    rows of the adapter's halves too.
    """
    decoder = model.decoder
    tokens = np.asarray(ids, np.int64)
    hidden = Streamed(checkpoint, transform).gather(decoder.embedding, np.maximum(tokens, 0))
    for encoder, features in ((model.vision, image_features), (model.speech, audio_features)):
        if encoder is None:
            continue
        places = tokens < 0 if encoder.token_id is None else tokens == encoder.token_id
        if places.sum() != (0 if features is None else len(features)):
            raise ValueError(
                f"{places.sum()} places for {features if features is None else len(features)} features"
            )
        if features is not None:
            hidden[places] = features
    mode = "vision" if image_features is not None else "speech" if audio_features is not None else None
    adapter = next((lora for lora in decoder.adapters if lora.name == mode), None)
    return decode(checkpoint, decoder, hidden, last=last, transform=transform, adapter=adapter, built_in=True)
