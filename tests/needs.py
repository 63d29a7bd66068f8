"""What a test needs of the system beside Python: without it the test is skipped and says how to get it."""

from __future__ import annotations

import shutil
from functools import cache

import pytest

from converters.errors import PackageError
from edge.packaging import tools


def android_tools() -> None:
    """Skip where `edge package --app android` would refuse."""
    if said := _android_tools():
        pytest.skip(said)


def programs(**packages: str) -> None:
    """Skip without a program; each is given with the Debian package that has it."""
    missing = [package for name, package in packages.items() if shutil.which(name) is None]
    if missing:
        pytest.skip(f"apt-get install {' '.join(missing)}")


@cache
def _android_tools() -> str:
    try:
        tools.find()
    except PackageError as error:
        return f"{error.cause}: {error.hint}"
    return ""
