"""The wire format of protocol buffers, walked in a file without loading it.

https://protobuf.dev/programming-guides/encoding/. The payload of a field is a span of the file, read only on
request: a 2 GB graph costs what its structure costs, and a hostile length cannot make anything allocate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from converters.errors import CheckpointError

# A 40-layer decoder's graph has some 100 000 fields.
MAX_FIELDS = 5_000_000
MAX_TEXT = 1 << 16
MAX_ALL_TEXT = 1 << 26
MAX_DIMENSIONS = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """`value` is that of a varint or fixed field; a length-delimited one has None, and its span of the file."""

    number: int
    value: int | None
    start: int
    stop: int


class Wire:
    """A file of one message."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self._left = MAX_FIELDS
        self._text_left = MAX_ALL_TEXT

    def fields(self, start: int = 0, stop: int | None = None) -> Iterator[Field]:
        """The fields of the message in [start, stop). Raises CheckpointError where it is not well-formed."""
        stop = self.size if stop is None else stop
        at = start
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise self.bad(f"more than {MAX_FIELDS} fields")
            key, at = self._varint(at, stop)
            number, kind = key >> 3, key & 7
            if kind == _VARINT:
                value, at = self._varint(at, stop)
                yield Field(number, value, at, at)
            elif kind == _BYTES:
                length, at = self._varint(at, stop)
                if length > stop - at:
                    raise self.bad(f"a field of {length} bytes where {stop - at} follow")
                yield Field(number, None, at, at + length)
                at += length
            elif kind in (_FIXED32, _FIXED64):
                width = 4 if kind == _FIXED32 else 8
                if width > stop - at:
                    raise self.bad("ends inside a number")
                yield Field(number, int.from_bytes(self._read(at, width), "little"), at, at + width)
                at += width
            else:
                raise self.bad(f"wire type {kind} at byte {at}")

    def text(self, field: Field) -> str:
        """A string field. Raises CheckpointError for one longer than MAX_TEXT, and for too many."""
        length = field.stop - field.start
        self._text_left -= length
        if length > MAX_TEXT or self._text_left < 0:
            raise self.bad(f"a name of {length} bytes, or too many names")
        return self._read(field.start, length).decode("utf-8", "replace")

    def numbers(self, field: Field) -> list[int]:
        """One part of a repeated integer: a single value, or a packed span of them."""
        if field.value is not None:
            return [field.value]
        values, at = [], field.start
        while at < field.stop:
            value, at = self._varint(at, field.stop)
            values.append(value)
            if len(values) > MAX_DIMENSIONS:
                raise self.bad(f"more than {MAX_DIMENSIONS} dimensions")
        return values

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        data = self._read(at, min(10, stop - at))
        value = 0
        for i, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
        raise self.bad(f"no number at byte {at}")

    def _read(self, at: int, count: int) -> bytes:
        # The buffered reader keeps its buffer across a seek inside it.
        self._file.seek(at)
        return self._file.read(count)

    def bad(self, what: str) -> CheckpointError:
        """The error that names the file."""
        return CheckpointError(
            f"{self._path}: not a readable ONNX graph: {what}", hint="take another copy of the file"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
