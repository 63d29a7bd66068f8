"""What the runtime and chat tests share: one tiny model as an ONNX folder and as a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray

from edge.runtimes.protocol import Dialect
from quant.recipe import Recipe
from tests.converters.gguf_support import write_gguf
from tests.converters.onnx_support import convert

SWITCH = 4096
ENGINES = ["onnx", "gguf"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_variant(engine: str, checkpoint: Path, directory: Path, *, context: int) -> Path:
    """A float32 variant. A GGUF that claims more than our writer allows is what llama.cpp's converter writes."""
    if engine == "onnx":
        convert(checkpoint, directory / "onnx", context_length=context)
        return directory / "onnx"
    path = directory / "tiny.gguf"
    write_gguf(checkpoint, path, Recipe.preset("f32"), context=min(context, SWITCH))
    if context > SWITCH:
        claim_context(path, context)
    return path


def claim_context(path: Path, context: int) -> None:
    """Rewrite phi3.context_length in place."""
    data = path.read_bytes()
    key = b"phi3.context_length"
    at = data.index(key) + len(key) + 4  # after the key: its value's type, uint32
    path.write_bytes(data[:at] + context.to_bytes(4, "little") + data[at + 4 :])


def not_a_number(source: Path, target: Path) -> Path:
    """The GGUF with a NaN in the gain of its last norm."""
    data = bytearray(source.read_bytes())
    (tensor,) = [t for t in GGUFReader(source).tensors if t.name == "output_norm.weight"]
    at = int(tensor.data_offset)
    data[at : at + 4] = np.float32(np.nan).tobytes()
    target.write_bytes(data)
    return target


class Scripted:
    """An engine that says given bytes, one token each, then its stop token 256; other ids are its input."""

    name = "scripted"

    def __init__(self, says: Sequence[bytes], *, context_length: int = 200, template: str | None = TEMPLATE):
        self.says = list(says)
        self.context_length = context_length
        self.vocab_size = 257 + len(self.says)
        self.template = template
        self.fed: list[int] = []
        self.appended: list[list[int]] = []

    @property
    def position(self) -> int:
        return len(self.fed)

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.appended.append(list(ids))
        self.fed += ids
        said = next((n for n, i in enumerate(reversed(self.fed)) if i <= 256), len(self.fed))
        logits = np.zeros(self.vocab_size, np.float32)
        logits[257 + said if said < len(self.says) else 256] = 1
        return logits

    @property
    def room(self) -> int:
        return self.context_length - self.position

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([self.append([i]) for i in ids])

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        raise NotImplementedError

    def rewind(self, position: int) -> None:
        del self.fed[position:]

    def encode(self, text: str, *, special: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return self.says[token - 257] if token > 256 else b""

    def dialect(self) -> Dialect:
        return Dialect(self.template, "", "", (), frozenset({256}), ("<|end|>", "<|user|>", "<|assistant|>"))

    def close(self) -> None: ...

    @property
    def prompt(self) -> str:
        return bytes(i for i in self.fed if i < 256).decode()


def random_ids(count: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(5, 640, count)]


def largest(difference: Any) -> float:
    return float(np.abs(difference).max())
