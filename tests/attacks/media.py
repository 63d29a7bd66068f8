"""Pictures and recordings that lie: each a maker of bytes, and what the refusal must name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import soundfile
from PIL import Image


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is so large, with `data` as its compressed pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def recording(kind: str, subtype: str | None = None, frames: int = 8000) -> bytes:
    file = io.BytesIO()
    sound = 0.1 * np.sin(np.arange(frames) / 9)
    soundfile.write(file, sound, 16000, format=kind, subtype=subtype)
    return file.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def nan_wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(8000, np.nan), 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "half a png": (lambda: half(picture("PNG")), "damaged"),
    "half a jpeg": (lambda: half(picture("JPEG")), "damaged"),
    "half a webp": (lambda: half(picture("WEBP")), "damaged"),
    "half a gif": (lambda: half(picture("GIF")), "damaged"),
    "half a bmp": (lambda: half(picture("BMP")), "damaged"),
    "half a tiff": (lambda: half(picture("TIFF")), "image"),
    "png of no pixels": (lambda: png_header(0, 0), "image"),
    "png without pixels": (lambda: png_header(1000, 1000), "damaged"),
    "png of 3.6 gigapixels": (lambda: png_header(60_000, 60_000), "megapixels"),
    "png of 144 megapixels": (lambda: png_header(12_000, 12_000), "megapixels"),
    "png of the largest sides": (lambda: png_header(0x7FFFFFFF, 0x7FFFFFFF), "megapixels"),
    "bmp of the largest sides": (
        lambda: patched(patched(picture("BMP"), 18, "<i", 0x7FFFFFFF), 22, "<i", 0x7FFFFFFF),
        "megapixels",
    ),
    "tiff whose first directory is elsewhere": (
        lambda: patched(picture("TIFF"), 4, "<I", 0xFFFFFF00),
        "image",
    ),
}

AUDIO: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"hello, this is no sound\n" * 9, "as audio"),
    "half a wav": (lambda: half(recording("WAV")), "cut short"),
    "half an aiff": (lambda: half(recording("AIFF")), "cut short"),
    "half a flac": (lambda: half(recording("FLAC", frames=99_000)), "flac"),
    "half an mp3": (lambda: half(recording("MP3", frames=99_000)), "cut short"),
    "wav header alone": (lambda: recording("WAV")[:44], "cut short"),
    "wav of no channels": (lambda: patched(recording("WAV"), 22, "<H", 0), "Channel count is zero"),
    "wav of 65,535 channels": (lambda: patched(recording("WAV"), 22, "<H", 65535), "channels"),
    "wav of 2 GHz": (lambda: patched(recording("WAV"), 24, "<I", 0x7FFFFFFF), "2147483647 samples a second"),
    "wav of 6 kHz": (lambda: patched(recording("WAV"), 24, "<I", 6000), "6000 samples a second"),
    "wav of an unknown codec": (lambda: patched(recording("WAV"), 20, "<H", 0x2345), "as audio"),
    "flac of 68 billion samples": (
        lambda: patched(recording("FLAC"), 22, ">I", 0xFFFFFFFF),
        "longer than 30 minutes",
    ),
    "not a number": (nan_wav, "no sound"),
}
