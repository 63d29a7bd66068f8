"""The formats that a checkpoint can become, one room each behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from converters import gguf, onnx
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.gguf import lora as gguf_adapters
from converters.multimodal import Multimodal, text_of
from converters.onnx import dml, multimodal, npu
from converters.onnx import lora as onnx_adapters
from converters.rewriting import Rewriting
from converters.verify import Stored
from converters.writer import ArtifactWriter, Storages

Described = TypeVar("Described", contravariant=True)
"""What a room writes: a Decoder, or a Multimodal with its encoders."""


class Room(Protocol[Described]):
    """What a format's package offers. BLOCK_FORMATS: the storages in blocks that its runtime multiplies by."""

    BLOCK_FORMATS: frozenset[str]

    def check(self, decoder: Described, recipe: Storages) -> None:
        """UnsupportedError, by name, for what no artifact of this format would compute rightly."""

    def context_limit(self, decoder: Described) -> tuple[int, str | None]:
        """The longest context that is right here, and why where that is less than the checkpoint claims."""

    def planned_bytes(self, decoder: Described, recipe: Storages, *, context_length: int) -> int:
        """Bytes of the weights' file or files."""

    def planned_files(self, decoder: Described, recipe: Storages, context_length: int) -> Mapping[str, int]:
        """Bytes of every file of a folder, tokenizer files left out; of a single file {"": bytes}."""

    def open_writer(
        self,
        decoder: Described,
        recipe: Storages,
        path: Path,
        *,
        context_length: int,
        checkpoint_directory: Path,
        model_name: str,
    ) -> ArtifactWriter:
        """Begin an artifact at `path` (a folder is made if missing)."""

    def open_stored(self, path: Path, decoder: Described, recipe: Storages) -> Stored:
        """Read an artifact back for the proof. BundleError when it is damaged."""


class AdapterRoom(Protocol):
    """What a format's package offers whose runtime switches adapters."""

    def write_adapters(
        self, checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path
    ) -> None:
        """A file for each adapter of the decoder, beside or in the artifact at `variant`."""

    def adapter_faults(
        self, checkpoint: Checkpoint, decoder: Decoder, recipe: Storages, variant: Path
    ) -> list[str]:
        """How those files differ from the adapters, read back; one line each."""

    def adapter_bytes(self, decoder: Decoder, recipe: Storages) -> int:
        """Of those files."""


MULTIMODAL = "multimodal"
ROOMS: Mapping[str, Room[Any]] = {"onnx": onnx, "gguf": gguf, "npu": npu, "dml": dml, MULTIMODAL: multimodal}
"""By the format's name."""


def described(format_name: str, model: Decoder | Multimodal) -> Any:
    """What the room of a format takes of a model: all of it, or its decoder."""
    return model if format_name == MULTIMODAL else text_of(model)


ADAPTER_ROOMS: Mapping[str, AdapterRoom] = {"onnx": onnx_adapters, "gguf": gguf_adapters}


def rewriting(format_name: str, decoder: Decoder) -> Rewriting | None:
    """How the checkpoint is rewritten for a format whose runtime computes something else; None where none does."""
    return gguf.rewriting(decoder) if format_name == "gguf" else None
