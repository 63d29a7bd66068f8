"""Which files of a directory a checkpoint consists of, opened so that no name in it leads elsewhere."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from converters.errors import CheckpointError
from converters.safetensors_header import TensorInfo, read_into
from converters.strict_json import DAMAGED, MAX_BYTES, parse_object, shown

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SHARD = re.compile(r"model-[0-9]+-of-[0-9]+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WHICH = "give the directory that holds config.json and the weights"
_FETCH = "fetch the whole checkpoint again: edge pull NAME"


def open_inside(directory: Path, name: str) -> int:
    """A read-only descriptor of the regular file `name` in `directory` (an absolute, resolved path).

    A link may lead within the directory, or from a Hugging Face cache snapshot to the cache's `blobs`; one
    that leads anywhere else is refused with CheckpointError, as are pipes and devices.
    """
    roots = [directory]
    if directory.parent.name == "snapshots":
        roots.append(directory.parent.parent / "blobs")
    try:
        target = (directory / name).resolve(strict=True)
        if not any(target.is_relative_to(root) for root in roots):
            raise CheckpointError(
                f"{name}: is a link that leaves the checkpoint directory",
                hint="put a copy of the file in place of the link",
            )
        # O_NONBLOCK: opening a pipe must not wait for its other end.
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CheckpointError(f"{name}: missing in {shown(directory)}", hint=_FETCH) from None
    except (OSError, RuntimeError) as error:
        cause = getattr(error, "strerror", None) or "symbolic links form a loop"
        raise CheckpointError(
            f"{name}: cannot be opened: {cause}", hint="check the file and its permissions: ls -l"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{name}: is not a regular file", hint=_FETCH)
    return descriptor


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """The JSON object in file `name` of `directory`. Raises CheckpointError, also for more than MAX_BYTES."""
    descriptor = open_inside(directory, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{name}: {size} bytes is over the limit of {MAX_BYTES}", hint=DAMAGED)
        raw = bytearray(size)
        read_into(descriptor, memoryview(raw), 0, directory / name)
    finally:
        os.close(descriptor)
    return parse_object(raw, name)


def list_directory(directory: Path) -> tuple[Path, list[str]]:
    """The directory, resolved, and the sorted names in it. Raises CheckpointError when there is none."""
    try:
        if not directory.is_dir():
            kind = "is a file, not a checkpoint directory" if directory.exists() else "does not exist"
            raise CheckpointError(f"{shown(directory)} {kind}", hint=_WHICH)
        return directory.resolve(), sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        raise CheckpointError(f"{shown(directory)} cannot be read: {error.strerror}", hint=_WHICH) from error


def find_shards(directory: Path, names: list[str]) -> tuple[list[str], dict[str, str] | None]:
    """The safetensors files to open, in order, and the index's tensor -> file map (None without index)."""
    shards = [name for name in names if _SHARD.fullmatch(name)]
    if INDEX in names:
        index = read_index(directory)
        listed = set(index.values())
        for name in names:
            if (name == SINGLE or name in shards) and name not in listed:
                raise CheckpointError(
                    f"{name}: is in the directory but {INDEX} does not name it",
                    hint="remove it if it is left over from another save; else fetch the checkpoint again",
                )
        return sorted(listed), index
    if SINGLE in names:
        if shards:
            raise CheckpointError(
                f"{SINGLE} and {shards[0]} both stand in {shown(directory)}, without {INDEX}",
                hint="remove the one that is not the model",
            )
        return [SINGLE], None
    if shards:
        raise CheckpointError(f"{INDEX}: missing beside {shards[0]}", hint=_FETCH)
    pickles = [name for name in names if name.lower().endswith(_PICKLES)]
    if pickles:
        raise CheckpointError(
            f"{shown(pickles[0])}: pickled weights can run code when loaded, and are refused",
            hint="re-save as safetensors where you trust the file: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
        )
    raise CheckpointError(f"{SINGLE}: missing in {shown(directory)}", hint=_WHICH)


def read_index(directory: Path) -> dict[str, str]:
    """Tensor name -> shard file name. Raises CheckpointError unless each is a plain safetensors file name."""
    weight_map = read_json(directory, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX}: weight_map is missing, empty or not an object", hint=DAMAGED)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain(shard):
            raise CheckpointError(
                f"{INDEX}: tensor {shown(tensor)}: shard {shown(shard)} is not a plain name of a "
                ".safetensors file in the checkpoint directory",
                hint=DAMAGED,
            )
    return weight_map


def check_index(tensors: Mapping[str, TensorInfo], index: Mapping[str, str]) -> None:
    """Raise CheckpointError unless the shards hold exactly the tensors that the index gives them."""
    for name, shard in index.items():
        if name not in tensors:
            raise CheckpointError(f"{INDEX}: tensor {shown(name)} is not in {shard}", hint=DAMAGED)
        if tensors[name].file.name != shard:
            raise CheckpointError(
                f"{INDEX}: tensor {shown(name)} is in {tensors[name].file.name}, not in {shard}", hint=DAMAGED
            )
    for name, tensor in tensors.items():
        if name not in index:
            raise CheckpointError(f"{tensor.file.name}: tensor {shown(name)} is not in {INDEX}", hint=DAMAGED)


def _is_plain(name: str) -> bool:
    # By the rules of Windows, which include POSIX's: an index must mean the same everywhere.
    bare = PureWindowsPath(name).name == name
    return bare and len(name) <= 255 and name.isprintable() and name.endswith(".safetensors")
