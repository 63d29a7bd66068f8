"""config.json read so that nothing in it is overlooked: every key is taken, or known as neutral, or an error.

An architecture takes the keys that it understands, one by one, and ends with `finish()`: a key that is left
may change the maths, and nobody has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.errors import CheckpointError, UnsupportedError
from converters.strict_json import shown

NEUTRAL = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "architectures",
    "attention_dropout", "auto_map", "dtype", "embd_pdrop", "gradient_checkpointing", "initializer_range",
    "model_type", "output_attentions", "output_hidden_states", "resid_pdrop", "return_dict",
    "tokenizer_class", "torch_dtype", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
})  # fmt: skip
"""Keys that say how a model was trained, saved or is called, never what it computes at inference."""

_FIX = "compare config.json with the one that the model was published with"
_LIMIT = 2**53
"""Sizes and factors stay far below it; above, products and floats of a hostile config would overflow."""


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LIMIT


class StrictConfig:
    """The keys of one JSON object; `where` names the object in messages (`rope_scaling.`)."""

    def __init__(self, data: Mapping[str, Any], where: str = "") -> None:
        self._data = data
        self._where = where
        self._taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """The raw value of `key`, which now counts as understood. null reads as absent."""
        self._taken.add(key)
        value = self._data.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer. Raises CheckpointError for anything else, and when absent without a default."""
        value = self.take(key, default)
        if value is None:
            raise self._missing(key)
        if not isinstance(value, int) or not _is_positive(value):
            raise self._wrong(key, value, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number. Raises CheckpointError as `integer` does."""
        value = self.take(key, default)
        if value is None:
            raise self._missing(key)
        if not _is_positive(value):
            raise self._wrong(key, value, "a positive number")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        value = self.take(key)
        if value is None:
            raise self._missing(key)
        if not isinstance(value, list) or len(value) != count:
            got = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
            raise CheckpointError(
                f"config.json: {self._where}{key} must be a list of {count} numbers, not {got}", hint=_FIX
            )
        for item in value:
            if not _is_positive(item):
                raise self._wrong(key, item, "made of positive numbers")
        return tuple(float(item) for item in value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def expect(self, key: str, *allowed: object) -> None:
        """Raise UnsupportedError unless `key` is absent or one of `allowed`."""
        value = self.take(key)
        if value is not None and not any(value == a and type(value) is type(a) for a in allowed):
            only = " or ".join(shown(a) for a in allowed)
            raise UnsupportedError(
                f"config.json: {self._where}{key} = {shown(value)} is not supported (only {only})",
                hint="convert a checkpoint without it, or add it to converters/models (CONTRIBUTING.md)",
            )

    def require(self, key: str, *allowed: object) -> None:
        """As `expect`, where the default is another value: CheckpointError when `key` is absent."""
        if self.take(key) is None:
            raise self._missing(key)
        self.expect(key, *allowed)

    def section(self, key: str) -> StrictConfig:
        """The object at `key`, whose keys are to be taken and finished too; an empty one when absent."""
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return StrictConfig(value, f"{self._where}{key}.")

    def token_id(self, key: str, vocab_size: int) -> int | None:
        """A token id below `vocab_size`, or None."""
        ids = self.token_ids(key, vocab_size)
        if len(ids) > 1:
            raise self._wrong(key, list(ids), "a single token id")
        return ids[0] if ids else None

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        """One token id or a list of them, each below `vocab_size`; () when absent."""
        value = self.take(key, [])
        ids = value if isinstance(value, list) else [value]
        for item in ids:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < vocab_size:
                raise self._wrong(key, item, f"a token id below vocab_size ({vocab_size})")
        return tuple(ids)

    def finish(self) -> None:
        """Raise UnsupportedError that names the first key that nobody took."""
        for key, value in self._data.items():
            if key not in self._taken and (self._where or key not in NEUTRAL):
                raise UnsupportedError(
                    f"config.json: key {self._where}{shown(key)} = {shown(value)} is not understood, and may "
                    "change what the model computes",
                    hint="remove the key if it has no effect, or teach converters/models to read it",
                )

    def _missing(self, key: str) -> CheckpointError:
        return CheckpointError(f"config.json: {self._where}{key} is missing", hint=_FIX)

    def _wrong(self, key: str, value: object, what: str) -> CheckpointError:
        return CheckpointError(
            f"config.json: {self._where}{key} must be {what}, not {shown(value)}", hint=_FIX
        )
