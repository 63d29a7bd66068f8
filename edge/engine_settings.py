"""How an engine is set up to run: what a target's profile, the benchmark or a person chooses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from converters.errors import UnsupportedError

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}
"""Names of KV cache types and their ggml_type (ggml.h)."""


@dataclass(frozen=True)
class EngineSettings:
    """None leaves a choice to the engine file, which says what it takes.

    threads: CPU threads, when a token is decoded and, unless `prefill_threads` says otherwise, for prompts too.
    batch: tokens of a prompt that run at once. kv_type: a key of KV_TYPES, of keys and values alike.
    flash_attention: attention without the whole score matrix; a quantized kv_type needs it.
    repack: weights interleaved for the CPU's kernels at load. spinning: idle threads wait busily.
    llama.cpp knows all but spinning; onnxruntime-genai knows threads, batch and spinning, and its KV type is
    the graph's. Raises UnsupportedError for a value that no engine takes.
    """

    threads: int | None = None
    prefill_threads: int | None = None
    batch: int | None = None
    kv_type: str | None = None
    flash_attention: bool | None = None
    repack: bool | None = None
    spinning: bool | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "prefill_threads", "batch"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise _wrong(name, value, "a whole number from 1")
        for name in ("flash_attention", "repack", "spinning"):
            if not isinstance(value := getattr(self, name), bool | None):
                raise _wrong(name, value, "true or false")
        if self.kv_type is not None and self.kv_type not in KV_TYPES:
            raise _wrong("kv_type", self.kv_type, f"one of {', '.join(KV_TYPES)}")
        if self.kv_type in ("q4_0", "q8_0") and self.flash_attention is False:
            raise _wrong("kv_type", self.kv_type, "a quantized cache needs flash_attention")

    @classmethod
    def from_data(cls, table: Mapping[str, Any]) -> EngineSettings:
        """The settings of a TOML or JSON table. UnsupportedError names a key that is none of them."""
        known = [field.name for field in fields(cls)]
        for name in table:
            if name not in known:
                raise UnsupportedError(
                    f"there is no engine setting '{name}'", hint=f"one of {', '.join(known)}"
                )
        return cls(**table)

    def to_data(self) -> dict[str, Any]:
        """What is chosen, ready for `from_data`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def only(self, engine: str, known: Collection[str]) -> None:
        """Raises UnsupportedError when something is chosen that `engine` cannot do."""
        for name in self.to_data():
            if name not in known:
                raise UnsupportedError(
                    f"{engine} has no setting '{name}'", hint=f"it takes {', '.join(known)}"
                )


def _wrong(name: str, value: object, wanted: str) -> UnsupportedError:
    return UnsupportedError(f"engine setting {name} is {value!r}", hint=wanted)
