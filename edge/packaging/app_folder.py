"""A packaged app that is a folder: published whole or not at all, and known again by a list of its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.errors import BundleError, PackageError
from edge.bundle import hash_files, write_json
from edge.staging import staging

LIST = "edge-app.json"
_LICENCES = ("LICENSE", "NOTICE")
APPS = Path(__file__).parent.parent / "apps"


@contextmanager
def app_folder(output: Path, app: str) -> Iterator[Path]:
    """As `edge.staging.staging`: yields an empty folder, which becomes `output` together with the list of its files."""
    with staging(output, kind=f"packaged {app} app", own=lambda folder: _listed(folder, app)) as partial:
        yield partial
        write_json(partial / LIST, {"app": app, "files": hash_files(partial)})


def sources(app: str) -> Path:
    """The folder of an app's own files. Raises PackageError for an installation without them."""
    folder = APPS / app
    if not folder.is_dir():
        raise PackageError(
            f"{folder} is missing: this installation of edge holds no apps", hint="install edge again"
        )
    return folder


def copy_licences(model: Path, folder: Path) -> None:
    """The texts that must stay with copies of the model, as model-NAME.txt."""
    for name in _LICENCES:
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / f"model-{name}.txt")


def _listed(folder: Path, app: str) -> Collection[str]:
    try:
        data = json.loads((folder / LIST).read_text(encoding="utf-8"))
        if data["app"] != app:
            raise ValueError(data["app"])
        return [LIST, *data["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(
            f"{folder} is no packaged {app} app", hint="name an empty or new place with -o DIR"
        ) from None
