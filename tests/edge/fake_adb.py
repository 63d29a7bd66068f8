"""A stand-in for the program `adb`: no phone can be here. The phone is a folder; its shell is this machine's.

`install` puts it into a folder for PATH. Files of the folder `phone` steer it: `devices` (what `adb devices` lists),
`free` (kilobytes that df tells), `break_after` (bytes after which the cable comes off, once), `full_after` (bytes),
`flip` (the byte that arrives wrong, once; `flips`: each time), `short_after` (bytes after which it stops in silence),
`hang` and `gone` (it answers no command, or is gone at the first), `packages` (what is installed), `abi`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

PROGRAM = """#!/bin/sh
exec "{python}" "{module}" "{phone}" "$@"
"""


def install(directory: Path, *, package: str = "dev.edge.app") -> Path:
    """Write `directory/bin/adb`; returns the phone's folder, `directory/phone`."""
    phone, program = directory / "phone", directory / "bin" / "adb"
    (phone / "sdcard" / "Android" / "data" / package / "files").mkdir(parents=True)
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, module=__file__, phone=phone))
    program.chmod(0o755)
    settings = {"devices": "emu1\tdevice\n", "free": "9000000", "packages": package, "abi": "arm64-v8a"}
    for name, value in settings.items():
        (phone / name).write_text(value)
    return phone


def _taken(phone: Path, name: str) -> int | None:
    """A setting that counts once."""
    file = phone / name
    if not file.exists():
        return None
    value = int(file.read_text())
    file.unlink()
    return value


def _lost(phone: Path) -> int:
    (phone / "devices").write_text("")
    print("error: device 'emu1' not found", file=sys.stderr)
    return 1


def _receive(phone: Path, target: str) -> int:
    limits = {name: _taken(phone, name) for name in ("break_after", "full_after", "short_after", "flip")}
    if (phone / "flips").exists():
        limits["flip"] = int((phone / "flips").read_text())
    with Path(target).open("ab") as file:
        count = 0
        while chunk := sys.stdin.buffer.read(1 << 12):
            flip = limits["flip"]
            if flip is not None and count <= flip < count + len(chunk):
                at = flip - count
                chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            for name in ("break_after", "full_after", "short_after"):
                limit = limits[name]
                if limit is not None and count + len(chunk) > limit:
                    file.write(chunk[: limit - count])
                    file.flush()
                    if name == "break_after":
                        return _lost(phone)
                    if name == "short_after":
                        sys.stdin.buffer.read()
                        return 0
                    print("cat: write error: No space left on device", file=sys.stderr)
                    return 1
            file.write(chunk)
            count += len(chunk)
    return 0


def main(phone: Path, words: list[str]) -> int:
    devices = (phone / "devices").read_text()
    if words == ["devices"]:
        print(f"List of devices attached\n{devices}")
        return 0
    assert words[0] == "-s"
    assert words[2] == "shell"
    if f"{words[1]}\tdevice" not in devices:
        print(f"error: device '{words[1]}' not found", file=sys.stderr)
        return 1
    if words[3] == "-T":
        return _receive(phone, words[4].removeprefix("cat >> ").replace("/sdcard", str(phone / "sdcard")))
    command = words[3]
    if (phone / "hang").exists():
        time.sleep(60)
    if (phone / "gone").exists():
        return _lost(phone)
    if command.startswith("getprop"):
        print((phone / "abi").read_text())
        return 0
    if command.startswith("pm path"):
        installed = command.split()[-1] in (phone / "packages").read_text().split()
        print("package:/data/app/base.apk" if installed else "")
        return int(not installed)
    if command.startswith("df -k"):
        free = (phone / "free").read_text()
        print(f"Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/fuse 1 1 {free} 1% /storage")
        return 0
    os.environ["LC_ALL"] = "C"
    return os.waitstatus_to_exitcode(os.system(command.replace("/sdcard", str(phone / "sdcard"))))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
