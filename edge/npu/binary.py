"""What a context binary says of itself, without loading it.

QNN writes the options that it compiled with as text into the binary, `soc_type=SM8650;arch=75;...`: that holds for
all kinds, those for several SoCs and those with shared weights too, which the emulator cannot load.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs in its wheel

from converters.errors import BundleError
from converters.onnx.npu.config import NPU_STAGES
from edge.bundle import sha256, write_json
from edge.npu.socs import Soc

_TEXT = re.compile(rb"soc_type=([A-Za-z0-9_]+);arch=(\d+)")
RECORD = "contexts.json"
_PIECE = 8 << 20
_OVERLAP = 256


@dataclass(frozen=True)
class Binary:
    """`socs`: (name, htp_arch) of every SoC that it was compiled for, in order."""

    file: Path
    socs: tuple[tuple[str, int], ...]


def read_binary(file: Path) -> Binary:
    """BundleError when it is missing, or names no SoC: then it is no context binary, or a damaged one."""
    found: dict[tuple[str, int], None] = {}
    try:
        with file.open("rb") as stream:
            before = b""
            while piece := stream.read(_PIECE):
                for match in _TEXT.finditer(before + piece):
                    found[match[1].decode(), int(match[2])] = None
                before = piece[-_OVERLAP:]
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}", hint="convert again") from None
    if not found:
        raise BundleError(
            f"{file} is no context binary: it names no SoC", hint="edge verify, or convert again"
        )
    return Binary(file, tuple(found))


def binaries_of(graph: Path) -> list[Path]:
    """The binaries that a compiled stage points at: one, or more where nodes between them run on the CPU.

    BundleError when the graph holds none, or one that is not beside it.
    """
    try:
        nodes = onnx.load(graph, load_external_data=False).graph.node
    except (OSError, DecodeError) as error:
        raise BundleError(f"{graph} cannot be read: {error}", hint="convert again") from None
    attributes = [a for node in nodes if node.op_type == "EPContext" for a in node.attribute]
    names: list[str] = [a.s.decode() for a in attributes if a.name == "ep_cache_context"]
    if not names or any("/" in name or "\\" in name for name in names):
        raise BundleError(f"{graph} is no graph of context binaries beside it", hint="convert again")
    return [graph.parent / name for name in dict.fromkeys(names)]


def write_record(folder: Path, soc: Soc) -> None:
    """Put into `folder`, beside its compiled stages, what `check_binaries` compares them with."""
    files = {}
    for file in _binaries(folder):
        files[file.name] = {"size": file.stat().st_size, "sha256": sha256(file)}
    write_json(folder / RECORD, {"soc": soc.name, "files": files})


def check_binaries(folder: Path) -> str:
    """The SoC that the compiled stages in `folder` are for; every byte of them is hashed.

    A flipped byte gives other answers without a word, and the emulator runs a binary for any SoC: BundleError when a
    file is not the one that was made, or is for another SoC.
    """
    try:
        record = json.loads((folder / RECORD).read_bytes())
        soc, files = (
            str(record["soc"]),
            {str(n): (e["size"], e["sha256"]) for n, e in record["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / RECORD} cannot be read: {error}", hint="convert again") from None
    for file in _binaries(folder):
        if file.name not in files:
            raise BundleError(f"{file} is not in {RECORD}", hint="convert again")
        if not file.is_file():
            raise BundleError(f"{file} is missing", hint="copy the bundle again from where it came")
        if [name for name, _ in read_binary(file).socs] != [soc]:
            made_for = ", ".join(name for name, _ in read_binary(file).socs)
            raise BundleError(
                f"{file} was compiled for {made_for}, this folder is for {soc}",
                hint=f"edge convert ... --target android-npu --soc {soc}",
            )
        if (file.stat().st_size, sha256(file)) != files[file.name]:
            raise BundleError(
                f"{file} is not the binary that was made", hint="copy the bundle again from where it came"
            )
    return soc


def _binaries(folder: Path) -> list[Path]:
    return [file for stage in NPU_STAGES for file in binaries_of(folder / f"{stage}.onnx")]
