"""A model goes to a phone, into the app's own folder: space first, resumed where it broke off, verified there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import DeviceError
from edge.packaging import adb, android, manifest_lint, phone_model
from edge.packaging.adb import Phone
from edge.packaging.identity import Identity
from edge.packaging.phone_model import PhoneModel
from edge.progress import Progress
from edge.units import size as readable

STORAGE = "/sdcard/Android/data"
"""Where adb reaches the folders that Android gives each app (Context.getExternalFilesDir)."""
SPARE_BYTES = 200_000_000
"""What is left free: a phone without space misbehaves as a whole."""


@dataclass(frozen=True)
class Report:
    """`resumed`: bytes that lay there already; `sent`: bytes that went over the cable."""

    serial: str
    model: str
    path: str
    bytes: int
    resumed: int
    sent: int

    def to_data(self) -> dict[str, Any]:
        return dict(vars(self))


def push(model: Path, variant: str | None, serial: str | None, app: str | None, progress: Progress) -> Report:
    """Bring a bundle's GGUF, or a GGUF file, to the phone with its model.json, which is written last.

    `app`: the application id, None for edge's own.
    Raises DeviceError for a phone that is not there, is no arm64, lacks the app or the space, or is lost; and what
    `phone_model.load` raises.
    """
    Identity(app).check()
    phone = adb.find(serial)
    package = app or manifest_lint.package_of(android.MANIFEST)
    _check_phone(phone, package)
    progress.stage(f"check {model.name}", phone_model.size(model))
    described = phone_model.load(model, variant, progress.advance)
    folder = f"{STORAGE}/{package}/files/models/{described.id}"
    file, part = f"{folder}/{phone_model.FILE}", f"{folder}/{phone_model.FILE}.part"
    _run(phone, folder, "mkdir", "-p", folder)
    if _size(phone, file) == described.size and _digest(phone, file, progress) == described.sha256:
        _describe(phone, described, folder)
        progress.done()
        return Report(phone.serial, described.id, folder, described.size, described.size, 0)
    resumed = _beginning(phone, part, described, _size(phone, file), folder)
    # What is listed must be whole: the app shows no folder without model.json.
    _run(phone, folder, "rm", "-f", f"{folder}/model.json", file)
    _send(phone, described, part, resumed, progress)
    digest = _digest(phone, part, progress)
    if digest != described.sha256 and resumed:
        # What lay there from before may be what is damaged: once more, from the start.
        resumed = 0
        _run(phone, folder, "rm", "-f", part)
        _send(phone, described, part, resumed, progress)
        progress.note(f"what lay on {phone.serial} was damaged; all of it was sent again")
        digest = _digest(phone, part, progress)
    if digest != described.sha256:
        _run(phone, folder, "rm", "-f", part)
        raise DeviceError(
            f"{phone.serial} holds other bytes than were sent; they are removed there",
            hint="try another cable or USB port, and run the same command again",
        )
    _run(phone, folder, "mv", part, file)
    _describe(phone, described, folder)
    progress.done()
    return Report(phone.serial, described.id, folder, described.size, resumed, described.size - resumed)


def _check_phone(phone: Phone, package: str) -> None:
    _, abis = phone.shell("getprop", "ro.product.cpu.abilist64")
    if manifest_lint.ABI not in abis:
        raise DeviceError(
            f"{phone.serial} has a processor of {abis or 'no 64 bits'}",
            hint=f"the app is for {manifest_lint.ABI}",
        )
    code, found = phone.shell("pm", "path", package)
    if code or not found.startswith("package:"):
        raise DeviceError(
            f"the app {package} is not on {phone.serial}",
            hint="edge package BUNDLE --embed never -o app.apk, then adb install app.apk, and open it once",
        )
    # A folder that adb itself makes there belongs to adb, and the app could not read what lies in it.
    code, said = phone.shell("ls", "-d", f"{STORAGE}/{package}/files")
    if code:
        raise DeviceError(
            f"the app {package} has no folder on {phone.serial} yet: {said[:400]}",
            hint="open the app once, and run the same command again",
        )


def _beginning(phone: Phone, part: str, model: PhoneModel, replaced: int, folder: str) -> int:
    """How many bytes of the model lie on the phone from an earlier run; room for the rest is made sure of.

    `replaced`: bytes of the file that makes way.
    """
    there = _size(phone, part)
    if there > model.size:
        _run(phone, folder, "rm", "-f", part)
        there = 0
    _, table = phone.shell("df", "-k", folder)
    try:
        free = int(table.splitlines()[-1].split()[3]) * 1024 + replaced
    except (IndexError, ValueError):
        raise DeviceError(f"{phone.serial} does not say how much space is free: {table[:80]}",
                          hint=f"look at it with `adb shell df {STORAGE}`") from None  # fmt: skip
    if (needed := model.size - there + SPARE_BYTES) > free:
        raise DeviceError(
            f"{phone.serial} has {readable(free)} free, and the model needs {readable(needed)}",
            hint=f"free some space on the phone ({readable(SPARE_BYTES)} of it are kept free)",
        )
    return there


def _send(phone: Phone, model: PhoneModel, part: str, start: int, progress: Progress) -> None:
    progress.stage(f"send {model.id} to {phone.serial}", model.size - start)
    phone.append(model.gguf, start, part, progress.advance)
    arrived = _size(phone, part)
    if arrived < model.size:
        raise DeviceError(
            f"only {readable(arrived)} of {readable(model.size)} arrived on {phone.serial}",
            hint="connect it again and run the same command: it continues where it stopped",
        )


def _size(phone: Phone, path: str) -> int:
    """Bytes of a file on the phone, 0 when there is none."""
    code, text = phone.shell("stat", "-c", "%s", path)
    return int(text) if code == 0 and text.isdecimal() else 0


def _digest(phone: Phone, path: str, progress: Progress) -> str:
    """SHA-256 that the phone computes; it reads all of the file, so it may take long."""
    progress.stage(f"verify on {phone.serial}")
    _, text = phone.shell("sha256sum", path, seconds=None)
    return text.split(" ")[0]


def _describe(phone: Phone, model: PhoneModel, folder: str) -> None:
    """Write model.json, under another name first."""
    with tempfile.TemporaryDirectory() as work:
        text = Path(work) / "model.json"
        text.write_bytes(model.json)
        part = f"{folder}/model.json.part"
        _run(phone, folder, "rm", "-f", part)
        phone.append(text, 0, part, lambda _: None)
        _run(phone, folder, "mv", part, f"{folder}/model.json")


def _run(phone: Phone, folder: str, *words: str) -> None:
    code, said = phone.shell(*words)
    if code:
        raise DeviceError(
            f"{phone.serial} refuses to change {folder}: {said[:400]}",
            hint="copy the file to the phone, and open it in the app from there",
        )
