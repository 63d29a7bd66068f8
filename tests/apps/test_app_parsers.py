"""What the app's Java reads from files and from the page: GGUF headers and JSON, sound and damaged."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.apps.conftest import Probe


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*entries: bytes, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries) if count is None else count) + b"".join(entries)


NAME = text("general.architecture") + struct.pack("<I", 8) + text("phi3")
ARRAY = text("a") + struct.pack("<I", 9)


def test_gguf_header_is_read(probe: Probe, tmp_path: Path) -> None:
    entries = (
        ARRAY + struct.pack("<IQ", 8, 2) + text("x") + text("y" * 9000),
        ARRAY + struct.pack("<IQ", 4, 5000) + bytes(20000),
        text("phi3.block_count") + struct.pack("<II", 4, 32),
        text("real") + struct.pack("<If", 6, 1.0),
        NAME,
    )
    file = tmp_path / "a.gguf"
    file.write_bytes(header(*entries))
    assert probe("gguf", str(file)) == {"value": {"phi3.block_count": 32, "general.architecture": "phi3"}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (b"GGU", "cut off"),
        (b"\x89PNG" + bytes(20), "other bytes"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"FUGG" + struct.pack(">IQQ", 3, 0, 0), "other bytes"),
        (header(NAME)[:-1], "cut off"),
        (header(NAME, count=2), "cut off"),
        (header(NAME, count=1 << 63), "cut off"),
        (header(struct.pack("<Q", 1 << 40)), "claims"),
        (header(struct.pack("<Q", 1 << 63)), "claims"),
        (header(text("k") + struct.pack("<I", 13)), "type 13"),
        (header(text("k") + struct.pack("<I", 1 << 31)), "type"),
        (header(ARRAY + struct.pack("<IQ", 4, 1 << 62)), "claims"),
        (header(ARRAY + struct.pack("<IQ", 4, 100)), "cut off"),
        (header(ARRAY + struct.pack("<IQ", 9, 1) * 1_000_000), "type 9"),
        # More entries than memory: each is small, and together they are too much.
        (header(*[text("k" * 50) + struct.pack("<IB", 0, 1)] * 200_000), "claims"),
    ],
)
def test_damaged_gguf_header_is_told(probe: Probe, tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(data)
    code, message = probe("gguf", str(file))["failure"]
    assert (code, said in message) == ("file_damaged", True), message


def test_header_damaged_anywhere_ends_in_a_failure_or_a_header(
    probe: Probe, tiny_gguf: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    whole = tiny_gguf.read_bytes()[:30_000]
    file = tmp_path / "a.gguf"
    for _ in range(200):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
        for _ in range(min(len(data), 4)):
            data[chance.randrange(min(len(data), 2000))] = chance.randrange(256)
        file.write_bytes(data)
        for call in ("gguf", "opened"):
            answer = probe(call, str(file))
            assert answer.get("failure", ["file_damaged"])[0] == "file_damaged"
            numbers = answer.get("value", {})
            assert numbers.get("kv_bytes_per_token", 0) >= 0


NO_JSON = (
    *("", " ", "-", "1.", ".5", "+1", "01", "NaN", "tru", "1 2", "[1,]", "[1}", "[1 2]", "[" * 100),
    *(
        '{"a":1]',
        '{"a" 1}',
        "{1:2}",
        '"a',
        '"\n"',
        '"\\x"',
        '"\\u12"',
        '"\\u+123"',
        '"\\u00g0"',
        '"\\u１２３４"',
    ),
)


@pytest.mark.parametrize("wrong", NO_JSON)
def test_what_is_no_json_is_refused(probe: Probe, wrong: str) -> None:
    assert probe("json", wrong)["failure"][0] == "json"


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 0, 1.5, 1e30, True, False, None, {}, []], "": "x"}, "\"\\/\b\f\n\r\t\u0000\u001f\u2028é😀",
        "</script>", 999999999999999999, -1, [[[[]]]],
    ],
)  # fmt: skip
def test_json_goes_around(probe: Probe, value: Any) -> None:
    assert json.loads(probe("json", json.dumps(value))["value"]) == value
