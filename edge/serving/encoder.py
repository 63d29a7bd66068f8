"""The encoder that is served: texts in, a vector each."""

from __future__ import annotations

from collections.abc import Callable, Generator

from edge.encoder.vectors import Embedder
from edge.serving.errors import ApiError, check_characters, context_exceeded
from edge.serving.events import Embedded, Event
from edge.serving.texts import Texts


class ServedEncoder:
    """Only the engine's thread may call `embed`."""

    engine = "onnxruntime"
    paths = ("/v1/embeddings",)

    def __init__(self, name: str, embedder: Embedder, created: int) -> None:
        self.names = [name]
        self.context_length = embedder.context_length
        self.dimensions = embedder.width
        self.created = created
        self._embedder = embedder
        self._frame = embedder.frame

    def embed(self, asked: Texts, check: Callable[[], None]) -> Generator[Event]:
        """A vector for each input, in order, once all of them are known to fit. Raises ApiError. check: see
        `edge.serving.model.Served.answer`."""
        if asked.dimensions not in (None, self.dimensions):
            raise ApiError(
                400,
                f"dimensions is {asked.dimensions}: the vectors of this model have {self.dimensions}, and it was not "
                "trained to be cut",
                param="dimensions",
            )
        rows = []
        for i, each in enumerate(asked.inputs):
            check()
            rows.append(self._ids(each, f"input[{i}]"))
        for row in rows:
            check()
            yield Embedded(self._embedder.vector(row), len(row))

    def close(self) -> None:
        """An onnxruntime session ends with its last reference."""

    def _ids(self, given: str | tuple[int, ...], where: str) -> list[int]:
        if isinstance(given, str):
            check_characters(len(given), self.context_length, where, "input")
            ids = self._embedder.ids(given)
        else:
            ids = list(given)
            self._check(ids, where)
        if len(ids) > self.context_length:
            raise context_exceeded(self.context_length, f"{where} takes {len(ids)} tokens", "input")
        return ids

    def _check(self, ids: list[int], where: str) -> None:
        """Clients that count tokens by OpenAI's vocabulary would get vectors of another text without a word."""
        before, behind = self._frame
        framed = ids[: len(before)] == before and ids[len(ids) - len(behind) :] == behind
        if not framed or len(ids) <= len(before) + len(behind):
            raise ApiError(
                400,
                f"{where} is not as this model's tokenizer writes a text, from {before} to {behind}; send texts",
                param="input",
            )
        if not all(0 <= token < self._embedder.vocab_size for token in ids):
            raise ApiError(400, f"{where} has ids that are no tokens of this model", param="input")
