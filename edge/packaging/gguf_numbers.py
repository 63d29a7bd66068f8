"""What the app on a phone must know of a GGUF, from the file's header alone: no tensor is read."""

from __future__ import annotations

from typing import Any

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf.reader import Gguf
from edge.fitting import llamacpp
from edge.packaging import turns

_INTERLEAVED = ("Q4_0", "Q8_0")
"""Types of which llama.cpp keeps an interleaved copy on arm64 (edge.fitting.llamacpp)."""
_KV_VALUE_BYTES = 2


class GgufNumbers:
    """What a GGUF's own header says. Raises CheckpointError that names the key that is missing."""

    def __init__(self, gguf: Gguf) -> None:
        self._gguf = gguf
        self.architecture = str(gguf.metadata.get("general.architecture", ""))

    def context(self) -> int:
        """Tokens; of a LongRoPE model no more than its original context, where one set of factors serves."""
        original = self._gguf.metadata.get(f"{self.architecture}.rope.scaling.original_context_length")
        trained = self._integer("context_length")
        return min(trained, original) if type(original) is int and original > 0 else trained

    def parameters(self) -> int:
        return sum(_count(tensor.shape) for tensor in self._gguf.tensors.values())

    def kv_bytes(self) -> int:
        """Of one token: float16 keys and values of all layers."""
        heads = self._integer("attention.head_count")
        width = self._integer("embedding_length") // max(heads, 1)
        key, value = (self._integer(f"attention.{n}_length", width) for n in ("key", "value"))
        return (
            _KV_VALUE_BYTES
            * self._integer("block_count")
            * self._integer("attention.head_count_kv", heads)
            * (key + value)
        )

    def work_bytes(self, context: int) -> int:
        """What llama.cpp allocates beside the mapped file and the cache, with the interleaved copies of arm64."""
        tensors = self._gguf.tensors
        tied = "output.weight" not in tensors
        copies = sum(
            t.nbytes
            for t in tensors.values()
            if t.type.name in _INTERLEAVED and len(t.shape) == 2 and t.shape[0] % 4 == 0
            and (tied or t.name != "token_embd.weight")
        )  # fmt: skip
        vocabulary = len(self._gguf.metadata.get("tokenizer.ggml.tokens", ()))
        inner, hidden = self._integer("feed_forward_length"), self._integer("embedding_length")
        return (
            copies + llamacpp.workspace(inner, hidden, llamacpp.BATCH, context) + llamacpp.runtime(vocabulary)
        )

    def turns(self) -> dict[str, Any] | None:
        """The chat template as texts between the turns; None for a model without one."""
        template = self._gguf.metadata.get("tokenizer.chat_template")
        if not isinstance(template, str) or not template:
            return None
        return turns.describe(template, bos_token=self._token("bos"), eos_token=self._token("eos"))

    def _token(self, kind: str) -> str:
        tokens = self._gguf.metadata.get("tokenizer.ggml.tokens", [])
        number = self._gguf.metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return str(tokens[number]) if type(number) is int and 0 <= number < len(tokens) else ""

    def _integer(self, key: str, default: int | None = None) -> int:
        name = f"{self.architecture}.{key}"
        value = self._gguf.metadata.get(name, default)
        if type(value) is int and value > 0:
            return value
        if isinstance(value, list):
            raise UnsupportedError(
                f"{self._gguf.path}: '{name}' differs by layer",
                hint="the app takes models whose layers are alike",
            )
        raise CheckpointError(
            f"{self._gguf.path}: key '{name}' is missing or no number", hint="take another copy"
        )


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
