"""`--app ios`: an Xcode project around llama.rn's framework and the bundle's GGUF. Untested: nothing here can build it.

Chat.xcodeproj, Chat/     apps/ios, as it is
Model/                    model.gguf and model.json
licences/                 in the app too
Frameworks/               rnllama.xcframework, of which the libraries for phones and their simulator
"""

from __future__ import annotations

import json
import plistlib
import shutil
from pathlib import Path

from edge.packaging import parts, phone_model, web_model
from edge.packaging.app_folder import app_folder, copy_licences, sources
from edge.packaging.packaged import Packaged
from edge.progress import Progress

UNTESTED = "untested: this Xcode project was written without Xcode, and was never compiled or run"
FRAMEWORK = "rnllama.xcframework"
_LICENCES = {"llama.rn.txt": "package/LICENSE", "llama.cpp.txt": "package/cpp/LICENSE"}


def package(model: Path, output: Path, variant: str | None, progress: Progress) -> Packaged:
    """Write the project. Raises what `phone_model.load` and `parts.fetch` raise, BundleError for a place that cannot be
    written."""
    with app_folder(output, "ios") as folder:
        progress.stage("read the model", phone_model.size(model))
        loaded = phone_model.load(model, variant, progress.advance)
        own, llama = sources("ios"), parts.fetch("llama.rn-ios", progress)
        description = {**loaded.description, **web_model.describe(loaded.gguf)}
        shutil.copytree(own, folder, dirs_exist_ok=True)
        _copy_framework(llama / "package/ios" / FRAMEWORK, folder / "Frameworks" / FRAMEWORK)
        (folder / "licences").mkdir()
        for name, source in _LICENCES.items():
            shutil.copyfile(llama / source, folder / "licences" / name)
        copy_licences(model, folder / "licences")
        (folder / "Model").mkdir()
        shutil.copyfile(loaded.gguf, folder / "Model" / phone_model.FILE)
        text = json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "Model" / "model.json").write_text(text, encoding="utf-8")
        framework = sum(f.stat().st_size for f in (folder / "Frameworks").rglob("*") if f.is_file())
    progress.done()
    return Packaged("ios", output, {"model": loaded.size, "framework": framework}, notes=(UNTESTED,))


def _copy_framework(source: Path, target: Path) -> None:
    """The framework, whose list names the libraries that are there and not llama.rn's for Apple TV."""
    shutil.copytree(source, target)
    file = target / "Info.plist"
    listed = plistlib.loads(file.read_bytes())
    kept = [each for each in listed["AvailableLibraries"] if (target / each["LibraryIdentifier"]).is_dir()]
    file.write_bytes(plistlib.dumps(listed | {"AvailableLibraries": kept}))
