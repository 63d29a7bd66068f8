"""Publish whole or not at all: a hidden sibling directory, one lock per place, one atomic rename.

For an output `DIR/NAME` the work happens in `DIR/.NAME.edge-partial` under an advisory lock on
`DIR/.NAME.edge-lock`. An existing bundle is exchanged for the new one in one system call where the kernel can
(Linux renameat2), so that a kill at any moment leaves the old bundle or the new one; elsewhere the old one is
`DIR/.NAME.edge-old` for a moment. A killed process leaves only those names; the next run takes the lock (the
kernel released it), puts an old bundle back, and removes the rest.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.errors import BundleError, MachineError
from edge.bundle import MANIFEST, list_files, load

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def bundle_files(directory: Path) -> Collection[str]:
    """The files that a bundle's manifest lists. Raises BundleError for what is no bundle."""
    return [MANIFEST, *load(directory).manifest["files"]]


@contextmanager
def staging(
    output: Path, *, kind: str = "bundle", own: Callable[[Path], Collection[str]] = bundle_files
) -> Iterator[Path]:
    """Yield an empty directory; on a clean exit it becomes `output`, otherwise it vanishes.

    own: the files of an `output` that is there already, BundleError when it is not of this `kind`.
    Raises BundleError when `output` holds something else, when its parent cannot be written, or when another
    conversion works on the same place; MachineError when the disk is full.
    """
    output = Path(os.path.abspath(output))  # noqa: PTH100  # resolves ".." without following links
    _refuse_foreign(output, kind, own)
    made = _make_parents(output.parent)
    lock = output.parent / f".{output.name}.edge-lock"
    partial = output.parent / f".{output.name}.edge-partial"
    published = False
    try:
        descriptor = _lock(lock, output)
        try:
            _recover(output)
            _remove(partial)
            partial.mkdir()
            yield partial
            sync_tree(partial)
            _publish(partial, output)
            published = True
        finally:
            _remove(partial)
            lock.unlink(missing_ok=True)
            os.close(descriptor)
    except OSError as error:
        raise _as_edge_error(error, output) from error
    finally:
        if not published:
            for directory in made:
                try:
                    directory.rmdir()
                except OSError:
                    break


def _as_edge_error(error: OSError, output: Path) -> BundleError | MachineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"the disk that holds {output.parent} is full; nothing was published",
            hint="free some space (`edge convert --dry-run` says how much is needed), or name another place with -o",
        )
    if error.errno in (*_REFUSED, *_NO_PLACE):
        return BundleError(
            f"cannot write to {output.parent}: {os.strerror(error.errno)}",
            hint="name a writable place with -o DIR",
        )
    return MachineError(
        f"{error.filename or output}: {error.strerror}", hint="look at the disk, then run it again"
    )


def _refuse_foreign(output: Path, kind: str, own: Callable[[Path], Collection[str]]) -> None:
    """What is replaced vanishes, so it must be of the kind and nothing but that."""
    new_place = "name an empty or new place with -o DIR"
    if Path.cwd().is_relative_to(output):
        raise BundleError(f"{output} is, or holds, the working directory", hint=new_place)
    if output.is_dir() and not output.is_symlink():
        if not any(output.iterdir()):
            return
        try:
            known = own(output)
        except BundleError:
            raise BundleError(
                f"{output} exists and is not a {kind}; it is left as it is", hint=new_place
            ) from None
        if foreign := [name for name in list_files(output) if name not in known]:
            raise BundleError(
                f"{output} holds {foreign[0]}, which is not of the {kind}; it is left as it is",
                hint=new_place,
            )
    elif output.exists() or output.is_symlink():
        raise BundleError(f"{output} exists and is not a directory", hint="name a new place with -o DIR")


def _make_parents(parent: Path) -> list[Path]:
    """Create missing parents; returns those created, innermost first."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        for directory in reversed(missing):
            directory.mkdir()
    except OSError as error:
        raise _as_edge_error(error, directory) from error
    return missing


def _lock(lock: Path, output: Path) -> int:
    if sys.platform == "win32":
        import msvcrt

        def take(descriptor: int) -> None:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        def take(descriptor: int) -> None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            take(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            raise BundleError(
                f"another conversion is writing {output}",
                hint="wait for it, or name another place with -o DIR",
            ) from None
        # The holder before us unlinks the file when it is done: a lock on an unlinked file protects nothing.
        try:
            if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """fsync every file and directory below `directory`."""
    for folder, _, files in os.walk(directory):
        for name in [*files, "."]:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _publish(partial: Path, output: Path) -> None:
    if not output.exists():
        partial.rename(output)
    elif not _exchange(partial, output):
        old = _old(output)
        output.rename(old)
        partial.rename(output)
        _remove(old)
    descriptor = os.open(output.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _old(output: Path) -> Path:
    return output.parent / f".{output.name}.edge-old"


def _recover(output: Path) -> None:
    """What a kill between the two renames of `_publish` left."""
    if _old(output).exists():
        if output.exists():
            _remove(_old(output))
        else:
            _old(output).rename(output)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories atomically; False where the system or file system cannot."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
