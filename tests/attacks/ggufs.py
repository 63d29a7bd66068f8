"""GGUF files that lie: each a maker of bytes, and what the refusal must name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence


def text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def file(
    keys: Sequence[bytes] = (), tensors: Sequence[bytes] = (), *, data: int = 4096, version: int = 3
) -> bytes:
    head = (
        b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    )
    return head + b"\0" * (-len(head) % 32 + data)


def tensor(name: bytes = b"t", dims: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def _string_array(count: int) -> bytes:
    return text(b"k") + struct.pack("<IIQ", 9, 8, count)


def _nested(depth: int) -> bytes:
    return text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "magic"),
    "no gguf": (lambda: b"PK\3\4" + b"\0" * 64, "not a GGUF"),
    "version 1": (lambda: file(version=1), "version 1"),
    "big-endian": (lambda: file(version=3 << 24), "big-endian"),
    "endless keys": (lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "keys"),
    "endless tensors": (lambda: b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors"),
    "endless key name": (lambda: file([struct.pack("<Q", 1 << 62)]), "key's name"),
    "empty key name": (lambda: file([text(b"")]), "key's name"),
    "control characters": (lambda: file([text(b"a\x1b[2J") + struct.pack("<IB", 0, 1)]), "key's name"),
    "no utf-8": (
        lambda: file([text(b"k") + struct.pack("<I", 8) + text(b"\xff\xfe")]),
        "'k' is not UTF-8",
    ),
    "endless string": (lambda: file([text(b"k") + struct.pack("<IQ", 8, 1 << 40)]), "'k'"),
    "endless array": (lambda: file([text(b"k") + struct.pack("<IIQ", 9, 10, 1 << 61)]), "'k'"),
    "endless strings": (lambda: file([_string_array(1 << 21)]), "'k' wants"),
    "too many items": (lambda: file([_string_array(1 << 40)]), "array items"),
    "nested arrays": (lambda: file([_nested(9)]), "nests"),
    "unknown type": (lambda: file([text(b"k") + struct.pack("<II", 13, 0)]), "unknown type 13"),
    "key twice": (lambda: file([text(b"k") + struct.pack("<IB", 0, 1)] * 2), "'k' is there twice"),
    "alignment": (
        lambda: file([text(b"general.alignment") + struct.pack("<II", 4, 24)], [tensor()]),
        "general.alignment",
    ),
    "no dimensions": (lambda: file([], [tensor(dims=())]), "0 dimensions"),
    "five dimensions": (lambda: file([], [tensor(dims=(1,) * 5)]), "5 dimensions"),
    "empty shape": (lambda: file([], [tensor(dims=(0, 4))]), "empty shape"),
    "product overflows": (lambda: file([], [tensor(dims=(1 << 33, 1 << 33, 4))]), "truncated"),
    "unknown tensor type": (lambda: file([], [tensor(kind=999)]), "unknown type 999"),
    "block not filled": (lambda: file([], [tensor(dims=(33, 1), kind=8)]), "blocks of 32"),
    "past the end": (lambda: file([], [tensor(dims=(32, 1000))]), "truncated"),
    "offset past the end": (lambda: file([], [tensor(offset=1 << 63)]), "truncated"),
    "misaligned": (lambda: file([], [tensor(offset=4)]), "aligned"),
    "overlap": (lambda: file([], [tensor(b"a"), tensor(b"b", offset=224)]), "'b' overlaps tensor 'a'"),
    "tensor twice": (lambda: file([], [tensor(), tensor(offset=256)]), "'t' is there twice"),
}
