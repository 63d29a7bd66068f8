"""A phone through Android's own `adb`: found, chosen, asked, written to. Nothing is installed on it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from converters.errors import DeviceError

TIMEOUT = 60.0
"""Seconds for a short answer of the phone."""
_CHUNK = 1 << 20
_CONNECT = "connect the phone with USB debugging on, unlock it, and look at `adb devices`"


def _lost(serial: str, said: str) -> DeviceError:
    return DeviceError(
        f"the connection to {serial} broke off{f': {said}' if said else ''}",
        hint="connect it again and run the same command: it continues where it stopped",
    )


@dataclass(frozen=True)
class Phone:
    """A device that adb reaches."""

    program: str
    serial: str

    def shell(self, *words: str, seconds: float | None = TIMEOUT) -> tuple[int, str]:
        """Exit code and output of a command on the phone. Raises DeviceError when the connection is lost."""
        command = [self.program, "-s", self.serial, "shell", shlex.join(words)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _lost(self.serial, f"no answer in {TIMEOUT:.0f} s") from None
        if done.returncode and _is_lost(done.stderr):
            raise _lost(self.serial, _first_line(done.stderr))
        return done.returncode, (done.stdout or done.stderr).strip()

    def append(self, source: Path, start: int, target: str, advance: Callable[[int], None]) -> None:
        """Send `source` from byte `start` on to the end of the file `target` on the phone.

        A stream, for `adb push` begins anew each time. Raises DeviceError when it breaks off (what arrived stays) or
        when the phone's storage is full.
        """
        command = [self.program, "-s", self.serial, "shell", "-T", f"cat >> {shlex.quote(target)}"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        stream, process.stdin = process.stdin, None
        assert stream is not None
        try:
            with source.open("rb") as file, suppress(BrokenPipeError), stream:
                file.seek(start)
                while chunk := file.read(_CHUNK):
                    stream.write(chunk)
                    advance(len(chunk))
        except BaseException:
            process.kill()
            process.wait()
            raise
        _, said = process.communicate()
        if process.returncode:
            text = _first_line(said.decode(errors="replace"))
            if "No space left" in text:
                raise DeviceError(
                    f"the storage of {self.serial} is full", hint="free some space there; it continues"
                )
            raise _lost(self.serial, text)


def find(serial: str | None) -> Phone:
    """The phone to talk to. Raises DeviceError without adb, without one ready phone, or without the one named."""
    program = shutil.which("adb")
    if program is None:
        raise DeviceError("there is no adb", hint="apt-get install adb, or Android's platform-tools")
    try:
        done = subprocess.run(
            [program, "devices"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"adb says nothing for {TIMEOUT:.0f} s", hint="try `adb kill-server`") from None
    except OSError as error:
        raise DeviceError(
            f"{program} cannot be started: {error.strerror}", hint="install adb again"
        ) from None
    states = dict(line.split("\t")[:2] for line in done.stdout.splitlines() if "\t" in line)
    ready = [name for name, state in states.items() if state == "device"]
    if serial is not None and serial not in ready:
        state = states.get(serial, "not connected")
        raise DeviceError(f"phone {serial} is {state}", hint=f"ready are: {', '.join(ready) or 'none'}")
    if not ready:
        waiting = ", ".join(f"{name} is {state}" for name, state in states.items())
        raise DeviceError(f"no phone is ready{f': {waiting}' if waiting else ''}", hint=_CONNECT)
    if serial is None and len(ready) > 1:
        raise DeviceError(f"{len(ready)} phones are connected: {', '.join(ready)}", hint="--serial NAME")
    return Phone(program, serial or ready[0])


def _is_lost(said: str) -> bool:
    words = (
        "not found",
        "no devices",
        "offline",
        "unauthorized",
        "protocol fault",
        "closed",
        "cannot connect",
    )
    return said.startswith(("error:", "adb:")) and any(word in said for word in words)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
