"""Tiny models that see and hear, pictures and recordings for them, and the reference that knows what they must say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from converters.checkpoint import Checkpoint
from converters.models import describe_whole
from converters.multimodal import Multimodal
from converters.multimodal_reference import logits
from converters.speech_reference import speech_features
from converters.vision_reference import image_features
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.runtimes.multimodal.media import Prepared
from edge.runtimes.multimodal.runtime import MultimodalRuntime
from edge.runtimes.protocol import Medium

Floats = NDArray[np.float32]
VOCABULARY = 640
"""Of the small one, in the native layout: the original's code has ids in it that need 200,064."""
TOLERANCE = 1e-3
"""Of logits of size 5; measured 1e-4 at most, of two orders of summation in float32."""


def write_media(directory: Path) -> None:
    """a.png, b.jpg, c.png (wide, upright, one crop) and a.wav, b.flac, c.wav (16, 44.1 and 8 kHz, one of them
    stereo)."""
    random = np.random.default_rng(3)
    for name, size in (("a.png", (300, 150)), ("b.jpg", (90, 200)), ("c.png", (60, 60))):
        coarse = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(directory / name)
    for name, rate, channels in (("a.wav", 16000, 1), ("b.flac", 44100, 2), ("c.wav", 8000, 1)):
        t = np.arange(int(1.3 * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * (180 + 40 * len(name) + 90 * np.sin(4 * t)) * t)
        sound = tone[:, None] + 0.05 * random.standard_normal((len(t), channels))
        soundfile.write(directory / name, sound, rate)


def make(checkpoint: Path, output: Path, *targets: str, proof: bool = False, **options: object) -> Path:
    """Convert into `output`; the bundle."""
    request = ConvertRequest(str(checkpoint), targets or ("cpu",), output=output, proof=proof, **options)  # type: ignore[arg-type]  # options of the dataclass
    convert(plan(request), Silent())
    return output


def kind_of(file: Path) -> str:
    return "image" if file.suffix in (".png", ".jpg") else "audio"


def read(runtime: MultimodalRuntime, directory: Path, *names: str) -> list[Medium]:
    return [runtime.read(kind_of(directory / name), directory / name) for name in names]


def prompt(media: Sequence[Medium]) -> list[int]:
    """Text, and after each medium two tokens of text."""
    ids = [5, 6, 7, 8]
    for i, medium in enumerate(media):
        ids += [*medium.ids, 20 + i, 30 + i]
    return ids


class Oracle:
    """Logits of the checkpoint by the numpy reference, which shares no code with the graphs."""

    def __init__(self, directory: Path) -> None:
        self._checkpoint = Checkpoint.open(directory)
        model = describe_whole(self._checkpoint)
        assert isinstance(model, Multimodal)
        self.model = model
        self.plain = replace(model, decoder=replace(model.decoder, adapters=()))
        """The same without its adapters."""
        self._features: dict[tuple[str, bool], Floats] = {}

    def logits(
        self, ids: Sequence[int], media: Sequence[Medium], *, last: int | None = None, adapters: bool = True
    ) -> Floats:
        """`ids` may end inside of a medium's places."""
        beside = any(medium.kind == "image" for medium in media)
        made: dict[str, list[Floats]] = {"image": [], "audio": []}
        for medium in media:
            made[medium.kind].append(self._of(medium, beside))
        encoders = {"image": self.model.vision, "audio": self.model.speech}
        joined: dict[str, Floats | None] = dict.fromkeys(made)
        for kind, features in made.items():
            if (encoder := encoders[kind]) and features:
                token = -1 if encoder.token_id is None else encoder.token_id
                joined[kind] = np.concatenate(features)[: list(ids).count(token)]
        return logits(
            self._checkpoint,
            self.model if adapters else self.plain,
            ids,
            image_features=joined["image"],
            audio_features=joined["audio"],
            last=last,
        )

    def _of(self, medium: Medium, beside: bool) -> Floats:
        key = medium.key, beside
        if key not in self._features:
            assert isinstance(medium, Prepared)
            given = medium.inputs
            if medium.kind == "image":
                assert self.model.vision is not None
                mask = given.get("image_attention_mask")
                seen = None if mask is None else mask != 0
                self._features[key] = image_features(
                    self._checkpoint, self.model.vision, given["pixel_values"], given["image_sizes"], seen
                )
            else:
                assert self.model.speech is not None
                self._features[key] = speech_features(
                    self._checkpoint,
                    self.model.speech,
                    given["audio_embeds"],
                    given["audio_sizes"],
                    given["audio_attention_mask"],
                    projection="vision" if beside else "speech",
                )
        return self._features[key]

    def close(self) -> None:
        self._checkpoint.close()
