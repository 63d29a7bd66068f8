"""An app as a phone installs it: built, signed, and unpacked as Android unpacks it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.packaging import android, signing, tools
from edge.progress import Silent
from tests import needs

_LIBRARIES = "lib/arm64-v8a/"


@dataclass(frozen=True)
class Installed:
    """libraries: folder of the .so files (nativeLibraryDir); gguf, description: the embedded model."""

    libraries: Path
    gguf: Path
    description: dict[str, Any]

    def prompt(self, question: str) -> str:
        """One question in the model's own template."""
        turns = self.description["turns"]
        return str(turns["start_user"] + question + turns["reply"])


def build(model: Path, folder: Path) -> Path:
    """The signed APK of a bundle or GGUF file, verified by apksigner."""
    needs.android_tools()
    apk = folder / "app.apk"
    android.package(android.Request(model, apk, embed="always"), Silent())
    signing.verify(tools.find(), apk)
    return apk


def install(model: Path, folder: Path) -> Installed:
    """Build the APK of a bundle, and take out of it what runs."""
    apk = build(model, folder)
    with zipfile.ZipFile(apk) as archive:
        description = json.loads(archive.read("assets/model.json"))
        model = f"assets/{description['file']}"
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith(_LIBRARIES)] + [model])
    return Installed(folder / _LIBRARIES, folder / model, description)
