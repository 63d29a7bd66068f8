"""An APK's ZIP, written in one pass: fixed order and times, what is stored lies on 4 bytes as zipalign puts it.

aapt only compiles the manifest and resources. Writing the rest here spares a large model three copies (aapt, aapt add,
zipalign), and gives the same bytes each time.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import PackageError
from edge.packaging.identity import Identity
from edge.packaging.tools import Tools, run

ALIGNMENT = 4
MAX_BYTES = (2 << 30) - 1
"""Android reads an APK's offsets as signed 32-bit numbers."""
STORE_BYTES = 200_000_000
"""Google Play's limit for the base module (https://support.google.com/googleplay/android-developer/answer/9859372)."""
STORED = (".gguf", ".arsc", ".png")
"""What is not compressed: resources.arsc by Android 11's rule, the others because it gains nothing."""
_TIME = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT_FIELD = 0xD935
"""The extra field of Android's own tools: its alignment, then zeros. apksigner keeps what it says."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file of the APK: its name there, and where its bytes come from."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def compile_resources(
    tools: Tools, manifest: Path, resources: Path, work: Path, identity: Identity
) -> list[Entry]:
    """The binary manifest, resources.arsc and the files of res/, as aapt makes them."""
    compiled = work / "resources.apk"
    words: list[str | Path] = [
        tools.aapt,
        "package",
        "-f",
        "-M",
        manifest,
        "-S",
        resources,
        "-I",
        tools.framework,
    ]
    if identity.id:
        words += ["--rename-manifest-package", identity.id]
    words += ["--version-code", str(identity.version_code()), "--version-name", identity.version_name()]
    run([*words, "-F", compiled], "aapt")
    with zipfile.ZipFile(compiled) as archive:
        return [Entry(name, archive.read(name)) for name in archive.namelist()]


def write(path: Path, entries: Sequence[Entry], advance: Callable[[int], None]) -> None:
    """Write an unsigned APK of `entries`, by name but the manifest first. Raises PackageError over 2 GiB."""
    total = sum(entry.size for entry in entries)
    if total > MAX_BYTES:
        raise PackageError(
            f"the APK would have {total / 1e9:.1f} GB, and Android installs none over 2 GiB",
            hint="--embed never, then `edge push` brings the model to the phone",
        )
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for entry in sorted(entries, key=lambda e: (e.name != "AndroidManifest.xml", e.name)):
            info = zipfile.ZipInfo(entry.name, _TIME)
            info.create_system = 0
            info.file_size = entry.size
            if entry.name.endswith(STORED):
                info.extra = _padding(stream.tell() + 30 + len(entry.name.encode()))
            else:
                info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as sink:
                if isinstance(entry.content, bytes):
                    sink.write(entry.content)
                    advance(entry.size)
                    continue
                with entry.content.open("rb") as source:
                    while chunk := source.read(_CHUNK):
                        sink.write(chunk)
                        advance(len(chunk))


def _padding(offset: int) -> bytes:
    """An extra field after which the data lies aligned; `offset`: where it would lie without one."""
    zeros = -(offset + 6) % ALIGNMENT
    return struct.pack("<HHH", _ALIGNMENT_FIELD, 2 + zeros, ALIGNMENT) + bytes(zeros)


def align_check(tools: Tools, apk: Path) -> None:
    """MachineError when zipalign finds a stored file that is not aligned."""
    run([tools.zipalign, "-c", str(ALIGNMENT), apk], "zipalign")


def sizes(apk: Path) -> dict[str, int]:
    """Bytes in the APK by part: model, libraries, code, page, resources, rest."""
    found = dict.fromkeys(("model", "libraries", "code", "page", "resources", "rest"), 0)
    with zipfile.ZipFile(apk) as archive:
        for info in archive.infolist():
            found[_part(info.filename)] += info.compress_size
    found["rest"] += apk.stat().st_size - sum(found.values())
    return found


def _part(name: str) -> str:
    if name.endswith(".gguf"):
        return "model"
    starts = {
        "lib/": "libraries",
        "classes": "code",
        "assets/www/": "page",
        "res": "resources",
        "Android": "resources",
    }
    return next((part for start, part in starts.items() if name.startswith(start)), "rest")
