"""Whether a WAV or AIFF holds the sound that its header promises: libsndfile takes one that was cut short as it is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

# First bytes and form -> byte order of the sizes, and the chunk of the samples.
_KINDS = {
    (b"RIFF", b"WAVE"): ("<", b"data"),
    (b"FORM", b"AIFF"): (">", b"SSND"),
    (b"FORM", b"AIFC"): (">", b"SSND"),
}
# A program that writes into a pipe cannot know the length: it writes one of the largest (ffmpeg, sox).
_UNKNOWN = 0x7FFF0000
_MAX_CHUNKS = 1000


def missing_bytes(path: Path) -> int:
    """How far the samples reach beyond the end of the file; 0 for other kinds and for unknown lengths."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        order, samples = _KINDS.get((head[:4], head[8:]), ("", b""))
        for _ in range(_MAX_CHUNKS if order else 0):
            if len(chunk := file.read(8)) < 8:
                return 0
            name, size = struct.unpack(f"{order}4sI", chunk)
            if name == samples:
                return max(0, file.tell() + size - end) if size < _UNKNOWN else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0
