"""A conversation's model with eyes and ears: one decoder at a time, features of what was shown, one KV cache.

The adapter follows what the conversation holds, as in the original (modeling_phi4mm.py, `forward`): with an image,
alone or beside speech, `vision`; with speech alone `speech`; neither for text. The original reads a whole conversation
with one of them; so the cache is kept as long as that stays, and read anew when it changes, at most twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge.engine_settings import EngineSettings
from edge.runtimes.chunked import Chunked
from edge.runtimes.folder import Folder
from edge.runtimes.multimodal.media import Prepared, Reader
from edge.runtimes.multimodal.sessions import Decoder, encode, open_encoder, open_session
from edge.runtimes.protocol import Dialect, Medium
from edge.runtimes.tokenizer import FolderTokenizer

Floats = NDArray[np.float32]
FeatureKey = tuple[str, bool]
"""`Medium.key`, and whether it is speech beside an image, which is projected otherwise."""


class MultimodalRuntime(Chunked):
    """See `Runtime` and `Perceiving`."""

    settings: ClassVar[tuple[str, ...]] = ("threads", "batch", "spinning")

    def __init__(self, folder: Folder, settings: EngineSettings) -> None:
        import onnxruntime

        settings.only("onnxruntime", self.settings)
        super().__init__(folder.context_length, folder.vocab_size, folder.switch, settings.batch)
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._path, self._settings = folder.path, settings
        self._stop_ids = folder.stop_ids
        self._tokenizer = FolderTokenizer(folder.path)
        self._reader = Reader(folder.path)
        self._encoders: dict[str, Any] = {}
        self._features: dict[FeatureKey, Floats] = {}
        self._shown: tuple[Prepared, ...] = ()
        self._fed: list[int] = []
        self._logits: Floats = np.empty((0, folder.vocab_size), np.float32)
        self._mode: str | None = None
        self._decoder: Decoder | None = Decoder(self._file(None), folder.context_length, settings)
        self._embedding = open_session(folder.path / "embedding.onnx", settings)

    @property
    def kinds(self) -> frozenset[str]:
        return self._reader.kinds

    def read(self, kind: str, path: Path) -> Medium:
        return self._reader.read(kind, path)

    def show(self, media: Sequence[Medium]) -> None:
        shown = tuple(medium for medium in media if isinstance(medium, Prepared))
        if len(shown) < len(media):
            raise ValueError("a medium that another runtime has read")
        mode = self._mode_of(shown)
        if mode != self._mode or self._decoder is None:
            self._ids = []
            self._decoder = None  # its memory goes before the other's comes
            self._decoder = Decoder(self._file(mode), self.context_length, self._settings)
            self._mode = mode
        else:
            del self._ids[self._kept(shown) :]
        self._shown = shown
        keys = _keys(shown)
        self._features = {key: rows for key, rows in self._features.items() if key in keys}

    def _mode_of(self, media: Sequence[Prepared]) -> str | None:
        kinds = {medium.kind for medium in media}
        mode = "vision" if "image" in kinds else "speech" if kinds else None
        return mode if mode in self._reader.adapters else None

    def _file(self, mode: str | None) -> Path:
        return self._path / ("model.onnx" if mode is None else f"model-{mode}.onnx")

    def _kept(self, media: Sequence[Prepared]) -> int:
        """How many tokens of the cache stand before the first place of a medium whose features are others now."""
        before = dict.fromkeys(self.kinds, 0)
        old, new = _keys(self._shown), _keys(media)
        for i, medium in enumerate(self._shown):
            if i >= len(new) or new[i] != old[i]:
                token = self._reader.token(medium.kind)
                places = [place for place, each in enumerate(self._ids) if each == token]
                return places[before[medium.kind]] if before[medium.kind] < len(places) else self.position
            before[medium.kind] += len(medium.ids)
        return self.position

    def _go_back(self, position: int) -> int:
        """The cache is overwritten from there on."""
        del self._fed[position:]
        return position

    def _feed(self, ids: Sequence[int]) -> None:
        assert self._decoder is not None, "the runtime was closed"
        inputs: dict[str, Any] = {"input_ids": np.asarray([ids], np.int64)}
        for kind in self.kinds:
            token = self._reader.token(kind)
            first = self._fed.count(token)
            inputs[f"{kind}_features"] = self._rows(kind, first, first + ids.count(token))
        embedded = self._embedding.run(None, inputs)[0]
        self._logits = self._decoder.run(embedded, len(self._fed))
        self._fed += ids

    def _rows(self, kind: str, start: int, stop: int) -> Floats:
        """Rows [start, stop) of the features of all that is shown of a kind, one after the other."""
        rows: list[Floats] = []
        first = 0
        for medium, key in zip(self._shown, _keys(self._shown), strict=True):
            if medium.kind != kind:
                continue
            last = first + len(medium.ids)
            if max(first, start) < min(last, stop):
                rows.append(self._features_of(medium, key)[max(start - first, 0) : stop - first])
            first = last
        if first < stop:
            raise ValueError(f"{stop} places for features of kind {kind}, and {first} features")
        return np.concatenate(rows) if rows else np.empty((0, self._width), np.float32)

    @cached_property
    def _width(self) -> int:
        """Of the decoder's input."""
        return int(self._embedding.get_outputs()[0].shape[2])

    def _features_of(self, medium: Prepared, key: FeatureKey) -> Floats:
        """From its encoder, once."""
        if key not in self._features:
            session = self._encoder(medium.kind)
            self._features[key] = encode(session, medium.kind, medium.inputs, beside_image=key[1])
        return self._features[key]

    def _encoder(self, kind: str) -> Any:
        """Opened when it is first needed."""
        if kind not in self._encoders:
            self._encoders[kind] = open_encoder(self._path, kind, self._settings)
        return self._encoders[kind]

    def _last(self) -> Floats:
        last: Floats = self._logits[-1]
        return last

    def _all(self) -> Floats:
        return self._logits

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def dialect(self) -> Dialect:
        # A model that writes the place of an image has nothing more to say: no feature goes there.
        places = {self._reader.token(kind) for kind in self.kinds}
        return self._tokenizer.dialect(self._stop_ids | places)

    def close(self) -> None:
        self._decoder = self._embedding = None
        self._encoders = {}


def _keys(media: Sequence[Prepared]) -> list[FeatureKey]:
    """By what the features of each are kept."""
    beside = any(medium.kind == "image" for medium in media)
    return [(medium.key, beside and medium.kind == "audio") for medium in media]
