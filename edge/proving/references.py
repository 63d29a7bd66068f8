"""Reference logits of a proof: from the checkpoint's weights, and from those that an artifact stores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.reference import Transform
from converters.reference import logits as reference_logits
from converters.rooms import ROOMS
from converters.verify import Codec
from edge.progress import Progress
from edge.proving.subject import Subject
from quant.recipe import Recipe


class References:
    """Reference logits for every subject, each as long as its context allows.

    The model is causal: a shorter subject takes the first rows of a longer one's, unless LongRoPE's factors,
    which follow the total length, switch in between.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        decoder: Decoder,
        ids: list[int],
        subjects: Sequence[Subject],
        progress: Progress,
    ) -> None:
        self._ids, self._rope = ids, decoder.rope
        longest: dict[tuple[Recipe | None, bool], int] = {}
        for subject in subjects:
            count = len(self.ids(subject))
            for recipe in (None, subject.recipe):
                key = (recipe, self._long(count))
                longest[key] = max(longest.get(key, 0), count)
        progress.stage("reference", len(longest), "runs")
        self._logits: dict[tuple[Recipe | None, bool], NDArray[np.float32]] = {}
        for (recipe, long), count in longest.items():
            transform = (
                None if recipe is None else through(next(s for s in subjects if s.recipe == recipe), decoder)
            )
            self._logits[recipe, long] = reference_logits(
                checkpoint, decoder, ids[:count], transform=transform
            )
            progress.advance(1)

    def ids(self, subject: Subject) -> list[int]:
        return self._ids[: min(subject.context_length, subject.tokens)]

    def plain(self, subject: Subject) -> NDArray[np.float32]:
        """From the checkpoint's weights, float32 [len(ids), vocab]."""
        return self._rows(None, len(self.ids(subject)))

    def through(self, subject: Subject) -> NDArray[np.float32]:
        """From the weights after the recipe's round trip."""
        return self._rows(subject.recipe, len(self.ids(subject)))

    def _rows(self, recipe: Recipe | None, count: int) -> NDArray[np.float32]:
        return self._logits[recipe, self._long(count)][:count]

    def _long(self, count: int) -> bool:
        return self._rope.is_longrope and count > self._rope.original_context


def through(subject: Subject, decoder: Decoder) -> Transform:
    """The recipe's round trip, or what the artifact holds where its codes are kept no more."""
    recipe = subject.recipe
    codec = codec_of(recipe, decoder)

    def transform(weight: Weight, start: int, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        made = codec(weight, start, raw)
        if made is None:
            stored = ROOMS[subject.format].open_stored(subject.path, decoder, recipe)
            made = stored.rows(weight, start, start + len(raw))
            stored.close()
        return made

    return transform


def codec_of(recipe: Recipe, decoder: Decoder) -> Codec:
    """The recipe's round trip where it can still be made (see `converters.verify.Codec`)."""
    unknown = set() if recipe.codes else {weight.name for weight in recipe.to_calibrate(decoder)}

    def codec(weight: Weight, start: int, raw: NDArray[np.generic]) -> NDArray[np.float32] | None:
        return None if weight.name in unknown else recipe.decode(recipe.encode(weight, raw, start=start))

    return codec
