"""What is asked of a path before any decoder sees a byte of it."""

from __future__ import annotations

import stat
from pathlib import Path

from converters.errors import MediaError


def require_file(path: Path, kind: str) -> int:
    """Size in bytes of the file. `kind`, for the message: "an image", "a recording".

    MediaError for a path that cannot be read, is no regular file (a pipe or a device may never end) or is empty.
    """
    try:
        found = path.stat()
        regular = stat.S_ISREG(found.st_mode)
        if regular:
            path.open("rb").close()
    except OSError as error:
        raise MediaError(
            f"{path} cannot be read: {error.strerror}", hint="check the path; quote it if it holds spaces"
        ) from None
    if not regular:
        raise MediaError(f"{path} is not a file", hint=f"name the file of {kind}")
    if not found.st_size:
        raise MediaError(f"{path} is empty", hint=f"name a file that holds {kind}")
    return found.st_size
