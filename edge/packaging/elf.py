"""What an ELF library asks of a phone: its processor, the libraries it needs, how its segments are aligned.

Read by hand, bounded: the file comes from an archive or a compiler, and nothing of it runs here. Layout: the ELF-64
specification, and for the 16 KB rule https://developer.android.com/guide/practices/page-sizes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from converters.errors import PackageError

PAGE = 16384
AARCH64 = 183
ALLOWED = frozenset({"libc.so", "libm.so", "libdl.so", "liblog.so", "libandroid.so"})
"""Public NDK libraries that every Android since 8.0 has (ndk public.libraries)."""
_LOAD, _DYNAMIC, _GNU_STACK = 1, 2, 0x6474E551
_NEEDED, _STRTAB, _STRSZ, _TEXTREL = 1, 5, 10, 22
_MAX_STRINGS = 16 << 20


@dataclass(frozen=True)
class Library:
    """`aligned`: the least alignment of a segment that is loaded, in bytes."""

    machine: int
    needed: tuple[str, ...]
    aligned: int
    executable_stack: bool
    text_relocations: bool


def read(path: Path) -> Library:
    """Raises PackageError for a file that is no sound little-endian 64-bit ELF library."""
    data = path.read_bytes()
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError) as error:
        raise PackageError(f"{path.name} is no sound ELF library: {error}", hint="fetch it again") from None


def _parse(data: bytes) -> Library:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if kind != 3:
        raise ValueError("no shared object")
    table, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    segments = [struct.unpack_from("<IIQQQQQQ", data, table + size * i) for i in range(count)]
    loads = [s for s in segments if s[0] == _LOAD]
    if not loads or not all(s[7] and s[2] % s[7] == s[3] % s[7] for s in loads):
        raise ValueError("a segment does not lie where its alignment says")
    dynamic: list[tuple[int, int]] = []
    for _, _, offset, _, _, length, _, _ in (s for s in segments if s[0] == _DYNAMIC):
        dynamic += [struct.unpack_from("<QQ", data, at) for at in range(offset, offset + length - 15, 16)]
    entries = dict(dynamic)
    strings = _at(loads, entries[_STRTAB]) if _STRTAB in entries else 0
    end = strings + min(entries.get(_STRSZ, 0), _MAX_STRINGS)
    needed = tuple(
        data[strings + value : end].split(b"\0", 1)[0].decode() for tag, value in dynamic if tag == _NEEDED
    )
    return Library(
        machine=machine,
        needed=needed,
        aligned=min(s[7] for s in loads),
        executable_stack=any(s[0] == _GNU_STACK and s[1] & 1 for s in segments),
        text_relocations=_TEXTREL in entries,
    )


def _at(loads: list[tuple[int, ...]], address: int) -> int:
    """The file offset of an address."""
    for _, _, offset, start, _, length, _, _ in loads:
        if start <= address < start + length:
            return offset + address - start
    raise ValueError("its string table is nowhere")


def check(path: Path) -> Library:
    """The library, if a phone can load it: arm64, segments on 16 KB pages, only the NDK's libraries, no code that is
    writable. Raises PackageError that says which of these it breaks."""
    library = read(path)
    wrong = []
    if library.machine != AARCH64:
        wrong.append(f"it is for ELF machine {library.machine}, not arm64")
    if library.aligned % PAGE:
        wrong.append(
            f"a segment is aligned to {library.aligned} bytes, and phones with 16 KB pages refuse it"
        )
    if foreign := sorted(set(library.needed) - ALLOWED):
        wrong.append(f"it needs {', '.join(foreign)}, which no app may count on")
    if library.executable_stack:
        wrong.append("its stack is executable")
    if library.text_relocations:
        wrong.append("it changes its own code when it is loaded, which Android refuses")
    if wrong:
        raise PackageError(
            f"{path.name}: {'; '.join(wrong)}", hint="build it as edge/packaging/native.py does"
        )
    return library
