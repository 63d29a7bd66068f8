"""One file, published whole or not at all: work in a hidden folder beside it, then one rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from converters.errors import BundleError, MachineError
from edge.staging import sync_tree


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder beside `output`; on a clean exit its file of output's name is published, and in every case
    the folder vanishes. What a killed run left is removed by the next.

    Raises BundleError where the place cannot be written, is a directory, or another run works on it; MachineError when
    the disk is full.
    """
    output = output.absolute()
    if output.is_dir():
        raise BundleError(f"{output} is a directory", hint="name a file with -o FILE")
    folder = output.parent / f".{output.name}.edge-partial"
    lock = FileLock(output.parent / f".{output.name}.edge-lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
            sync_tree(folder)
            (folder / output.name).replace(output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
    except Timeout:
        raise BundleError(
            f"another run is writing {output}", hint="wait for it, or name another file with -o"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or name another place with -o FILE"
            raise MachineError(
                f"the disk that holds {output.parent} is full; nothing was published", hint=hint
            ) from error
        if error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
        ):
            cause = f"cannot write to {output.parent}: {os.strerror(error.errno)}"
            raise BundleError(cause, hint="name a writable place with -o FILE") from error
        raise
