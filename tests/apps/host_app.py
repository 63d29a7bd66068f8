"""The app without its phone: HostServer in a process, spoken to as the page speaks (apps/android/PROTOCOL.md)."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.apps.host_build import ANDROID, Host

Event = dict[str, Any]
MEMINFO = "MemTotal:       8000000 kB\nMemAvailable:   {} kB\n"
TIMEOUT = 15.0


class App:
    """A running HostServer. `folder` holds files/, assets/, pushed/ and proc/."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.events: queue.Queue[Event] = queue.Queue()
        self._stream = urllib.request.urlopen(f"{url}/events", timeout=TIMEOUT)
        self._stream.readline()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._stream:
            if line.startswith(b"data: "):
                self.events.put(json.loads(line[6:]))

    def send(self, type: str, **fields: Any) -> None:
        self.send_text(json.dumps({"type": type, **fields}))

    def send_text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        urllib.request.urlopen(f"{self.url}/request", data=data, timeout=TIMEOUT).close()

    def upload(self, name: str, data: bytes) -> None:
        urllib.request.urlopen(f"{self.url}/import?name={name}", data=data, timeout=TIMEOUT).close()

    def until(self, type: str, **fields: Any) -> list[Event]:
        """Events up to the first of this type with these fields, with it."""
        seen: list[Event] = []
        while True:
            try:
                event = self.events.get(timeout=TIMEOUT)
            except queue.Empty:
                raise AssertionError(f"no {type} {fields} in {seen}") from None
            seen.append(event)
            if event["type"] == type and all(event.get(k) == v for k, v in fields.items()):
                return seen

    def last(self, type: str, **fields: Any) -> Event:
        return self.until(type, **fields)[-1]

    def load(self, model: str) -> Event:
        self.send("load", model=model)
        return self.last("state", phase="ready")

    def ask(self, text: str) -> Event:
        """The `done` of an answer; the state after it is taken as well."""
        self.send("chat", text=text)
        done = self.last("done")
        self.last("state", phase="ready")
        return done


@contextmanager
def run(host: Host, folder: Path, *, available_mb: int = 4000, proc: Path | None = None) -> Iterator[App]:
    """An app whose data lies in `folder`; run again on the same folder it is the app started anew.

    proc: read instead of a made-up /proc with so many megabytes available.
    """
    for name in ("files", "assets", "pushed", "proc/self"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "proc" / "meminfo").write_text(MEMINFO.format(available_mb << 10))
    (folder / "proc" / "self" / "status").write_text("VmRSS:\t  1000 kB\n")
    (folder / "proc" / "cpuinfo").write_text("Features\t: fp asimd\n")
    parts = [folder / name for name in ("files", "assets", "pushed")]
    command = host.java("dev.edge.host.HostServer", ANDROID / "www", *parts, host.libraries, proc or folder / "proc")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http"), process.communicate()
        yield App(url, folder)
        rest, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
        assert "closed" in rest
        assert "WARNING" not in rest + errors, rest + errors
    finally:
        process.kill()
        process.wait()


def embed(folder: Path, gguf: Path, description: Event) -> None:
    """Put a model where the APK has its assets."""
    assets = folder / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(gguf, assets / description["file"])
    (assets / "model.json").write_text(json.dumps(description))


def push(folder: Path, gguf: Path, description: Event) -> Path:
    """Put a model where `edge push` puts it; its file."""
    target = folder / "pushed" / description["id"]
    target.mkdir(parents=True)
    shutil.copyfile(gguf, target / description["file"])
    (target / "model.json").write_text(json.dumps(description))
    return target / description["file"]
