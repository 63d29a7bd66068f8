"""A decoder with the encoders that feed it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from converters.decoder import Decoder, Rope, Weight
from converters.encoders import Speech, Vision


@dataclass(frozen=True)
class Multimodal:
    """`decoder.adapters` holds the updates that a modality needs, called as it is: `vision` for prompts with an image
    (with speech or without), `speech` for prompts with speech alone; none for text."""

    decoder: Decoder
    vision: Vision | None
    speech: Speech | None

    @property
    def senses(self) -> tuple[str, ...]:
        """What it takes beside text: "images", "speech"."""
        kinds = (("images", self.vision), ("speech", self.speech))
        return tuple(name for name, encoder in kinds if encoder is not None)

    @property
    def rope(self) -> Rope:
        """The decoder's."""
        return self.decoder.rope

    @property
    def parameters(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.weights())

    def unused(self, tensors: Iterable[str]) -> frozenset[str]:
        """Those of the checkpoint's `tensors` that its architecture has and does not compute with: encoders' features
        are taken before their last layer. Describing the checkpoint has refused any that it did not know."""
        return frozenset(tensors) - {part.tensor for weight in self.weights() for part in weight.parts}

    def weights(self) -> Iterator[Weight]:
        """Every weight once: the decoder's, the encoders', then the halves of the adapters' updates."""
        yield from self.decoder.weights()
        for encoder in (self.vision, self.speech):
            if encoder is not None:
                yield from encoder.weights()
        halves = {
            half.parts: half
            for lora in self.decoder.adapters
            for pair in lora.pairs
            for half in (pair.a, pair.b)
        }
        yield from halves.values()


def text_of(model: Decoder | Multimodal) -> Decoder:
    """The decoder, with the adapters that belong to it."""
    return model.decoder if isinstance(model, Multimodal) else model
