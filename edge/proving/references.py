"""Reference logits of a proof: from the checkpoint's weights, and from those that an artifact stores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.reference import Transform
from converters.reference import logits as reference_logits
from converters.rewriting import Rewritten, RowSource
from converters.rooms import ROOMS, rewriting
from converters.verify import Codec
from edge.progress import Progress
from edge.proving.subject import Subject
from quant.recipe import Recipe

_Key = tuple[Recipe | None, str, bool]
"""Through which recipe's round trip (None: none), rewritten for which format (empty: none), with the long factors."""


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
        self._ids, self._decoder = ids, decoder
        longest: dict[_Key, int] = {}
        for subject in subjects:
            count = len(self.ids(subject))
            for key in dict.fromkeys(self._key(subject, *which) for which in _ALL):
                longest[key] = max(longest.get(key, 0), count)
        progress.stage("reference", len(longest), "runs")
        self._logits: dict[_Key, NDArray[np.float32]] = {}
        for (recipe, rewritten, long), count in longest.items():
            transform = (
                None if recipe is None else through(next(s for s in subjects if s.recipe == recipe), decoder)
            )
            source, computed = source_of(rewritten, checkpoint, decoder)
            self._logits[recipe, rewritten, long] = reference_logits(
                source, computed, ids[:count], transform=transform
            )
            progress.advance(1)

    def ids(self, subject: Subject) -> list[int]:
        return self._ids[: min(subject.context_length, subject.tokens)]

    def plain(self, subject: Subject) -> NDArray[np.float32]:
        """From the checkpoint's weights, float32 [len(ids), vocab]."""
        return self._rows(subject, stored=False, rewritten=False)

    def through(self, subject: Subject) -> NDArray[np.float32]:
        """From the weights after the recipe's round trip, as the artifact's runtime computes."""
        return self._rows(subject, stored=True, rewritten=True)

    def rewritten(self, subject: Subject) -> NDArray[np.float32]:
        """From the checkpoint's weights, rewritten as for the artifact; where it needs that."""
        return self._rows(subject, stored=False, rewritten=True)

    def _rows(self, subject: Subject, *, stored: bool, rewritten: bool) -> NDArray[np.float32]:
        return self._logits[self._key(subject, stored, rewritten)][: len(self.ids(subject))]

    def _key(self, subject: Subject, stored: bool, rewritten: bool) -> _Key:
        rope = self._decoder.rope
        long = rope.is_longrope and len(self.ids(subject)) > rope.original_context
        needed = rewritten and rewriting(subject.format, self._decoder) is not None
        return subject.recipe if stored else None, subject.format if needed else "", long


_ALL = ((False, False), (False, True), (True, True))
"""(stored, rewritten) of the three references."""


def source_of(format_name: str, checkpoint: Checkpoint, decoder: Decoder) -> tuple[RowSource, Decoder]:
    """The checkpoint and what is computed with it, both rewritten where the format needs that."""
    found = rewriting(format_name, decoder)
    return (
        (Rewritten(checkpoint, found.change(checkpoint)), found.decoder) if found else (checkpoint, decoder)
    )


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
