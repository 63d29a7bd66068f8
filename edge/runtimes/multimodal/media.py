"""An image or a recording on its way into a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.media import phi3v_images, phi4mm_audio, phi4mm_images, read_audio, read_image
from edge.runtimes.protocol import Medium
from edge.runtimes.tokenizer import read_json

MEDIA_FILE = "media.json"


@dataclass(frozen=True)
class Prepared(Medium):
    """`inputs`: what the encoder's graph takes, by name."""

    inputs: Mapping[str, NDArray[Any]]


class Reader:
    """Prepares files as the folder's media.json says: {kind, image_token, audio_token, crop_size,
    num_crops, adapters}."""

    def __init__(self, folder: Path) -> None:
        """UnsupportedError when the file is not as `edge convert` writes it."""
        described = read_json(folder / MEDIA_FILE)
        try:
            self._kind = str(described["kind"])
            self._tokens = {
                kind: int(described[f"{kind}_token"])
                for kind in ("image", "audio")
                if described[f"{kind}_token"] is not None
            }
            self._crop_size = int(described["crop_size"]) if "image" in self._tokens else 0
            self._num_crops = int(described["num_crops"])
            self.adapters = frozenset(map(str, described["adapters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UnsupportedError(
                f"{folder / MEDIA_FILE}: {error!r} is missing or no number", hint="edge verify BUNDLE"
            ) from None

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(self._tokens)

    def token(self, kind: str) -> int:
        """The input id in whose places the features of a kind go."""
        return self._tokens[kind]

    def read(self, kind: str, path: Path) -> Prepared:
        """The file, ready for its encoder. MediaError for a damaged one, UnsupportedError for a kind that the model
        does not take."""
        if kind not in self._tokens:
            raise UnsupportedError(
                f"this model takes no {kind} ({path})", hint=f"it takes: {', '.join(sorted(self._tokens))}"
            )
        prepared = self._image(path) if kind == "image" else self._audio(path)
        digest = hashlib.sha256(kind.encode())
        for name in sorted(prepared[1]):
            digest.update(np.ascontiguousarray(prepared[1][name]).data)
        # A line break after an image is how Phi-3-vision's prompts are written; Phi-4's have none.
        after = "\n" if self._kind == "phi3v" else ""
        return Prepared(kind, digest.hexdigest(), (self._tokens[kind],) * prepared[0], after, prepared[1])

    def _image(self, path: Path) -> tuple[int, dict[str, NDArray[Any]]]:
        image = read_image(path)
        made = (
            phi3v_images([image], self._num_crops, self._crop_size)
            if self._kind == "phi3v"
            else phi4mm_images([image], self._crop_size)
        )
        inputs: dict[str, NDArray[Any]] = {
            "pixel_values": made.pixel_values,
            "image_sizes": made.image_sizes,
        }
        if made.image_attention_mask is not None:
            inputs["image_attention_mask"] = made.image_attention_mask
        return made.tokens[0], inputs

    def _audio(self, path: Path) -> tuple[int, dict[str, NDArray[Any]]]:
        made = phi4mm_audio([read_audio(path)])
        inputs: dict[str, NDArray[Any]] = {
            "audio_embeds": made.audio_embeds,
            "audio_attention_mask": made.audio_attention_mask,
            "audio_sizes": made.audio_sizes,
        }
        return made.tokens[0], inputs
