"""A written GGUF read back by neutral weight names: what the proof compares with the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Experts, Weight
from converters.errors import CheckpointError
from converters.gguf.layout import LONG_FACTORS, SHORT_FACTORS, architecture, places, tensors
from converters.gguf.limits import CONTEXT_STEP
from converters.gguf.reader import Gguf
from converters.verify import Fact
from converters.writer import Storages


def open_stored(path: Path, decoder: Decoder, recipe: Storages) -> StoredGguf:
    """Open `path`, written by this room for `decoder` with `recipe`. CheckpointError when it is damaged."""
    return StoredGguf(Gguf.open(path), decoder, recipe)


class StoredGguf:
    """`converters.verify.Stored` over a GGUF; rows are dequantized by the `gguf` package, not by our codec."""

    def __init__(self, file: Gguf, decoder: Decoder, recipe: Storages) -> None:
        self._file = file
        self._decoder = decoder
        self._architecture = architecture(decoder)
        self._tensors = tensors(decoder, recipe.storage)
        self._places = places(self._tensors)

    def rows(self, weight: Weight, start: int, stop: int) -> NDArray[np.float32]:
        """Float32 rows [start, stop); for a vector, values."""
        place = self._places[weight.name]
        found = self._file.tensor(place.tensor.name)
        if found.shape != place.tensor.dims:
            raise CheckpointError(
                f"{self._file.path}: tensor '{found.name}' has the shape {found.shape}, not {place.tensor.dims}",
                hint="convert again",
            )
        if not weight.is_matrix:
            return self._file.read(found.name)[place.row + start : place.row + stop]
        return self._file.read(found.name, place.row + start, place.row + stop)

    def rope_table(self, total_length: int, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """(cos, sin) as llama.cpp computes them, float32 [len(positions), rotary size / 2].

        The factors depend on the context that the file asks for, not on `total_length`; angles are a running
        product in float32 (ggml-cpu/ops.cpp, `ggml_rope_cache_init`).
        """
        pairs = int(self._number("rope.dimension_count")) // 2
        context = -(-int(self._number("context_length")) // CONTEXT_STEP) * CONTEXT_STEP
        long = context > int(self._number("rope.scaling.original_context_length"))
        name = LONG_FACTORS if long else SHORT_FACTORS
        factors = self._file.read(name) if name in self._file.tensors else np.ones(pairs, np.float32)
        steps = np.full(
            (len(positions), pairs), np.float32(self._number("rope.freq_base")) ** np.float32(-1 / pairs)
        )
        steps[:, 0] = positions
        angle = np.multiply.accumulate(steps.astype(np.float32), axis=1) / factors
        scale = np.float32(self._number("rope.scaling.attn_factor"))
        return np.cos(angle) * scale, np.sin(angle) * scale

    def facts(self, context_length: int) -> Iterator[Fact]:
        """Metadata by which llama.cpp computes and stops."""
        decoder = self._decoder
        attention, rope = decoder.attention, decoder.rope
        allocated = -(-context_length // CONTEXT_STEP) * CONTEXT_STEP
        # Rounded up as the engine rounds its context, so that it never takes the long factors below the switch.
        original = max(rope.original_context, allocated) if rope.is_longrope else rope.original_context
        ends = [i for i in decoder.eos_token_ids if i < decoder.vocab_size]
        name = self._architecture
        expected: dict[str, Any] = {
            "general.architecture": name,
            f"{name}.context_length": context_length,
            f"{name}.embedding_length": decoder.hidden_size,
            f"{name}.block_count": len(decoder.layers),
            f"{name}.feed_forward_length": decoder.intermediate_size,
            f"{name}.attention.head_count": attention.heads,
            f"{name}.attention.head_count_kv": attention.kv_heads,
            f"{name}.attention.key_length": attention.head_dim,
            f"{name}.attention.value_length": attention.head_dim,
            f"{name}.attention.layer_norm_rms_epsilon": float(decoder.norm_eps),
            f"{name}.attention.sliding_window": attention.window or 0,
            f"{name}.rope.dimension_count": rope.dim,
            f"{name}.rope.freq_base": float(rope.theta),
            f"{name}.rope.scaling.original_context_length": original,
            f"{name}.rope.scaling.attn_factor": float(rope.attention_factor),
            "tokenizer.ggml.bos_token_id": decoder.bos_token_id,
            "tokenizer.ggml.eos_token_id": ends[0] if ends else None,
        }
        if isinstance(decoder.layers[0].mlp, Experts):
            expected[f"{name}.expert_count"] = len(decoder.layers[0].mlp.experts)
            expected[f"{name}.expert_used_count"] = 2
        for key, value in expected.items():
            yield Fact(key, self._file.metadata.get(key), value)
        for tensor in self._tensors:
            if tensor.constants and tensor.name in self._file.tensors:
                found = tuple(self._file.read(tensor.name).tolist())
                wanted = tuple(np.asarray(tensor.constants, np.float32).tolist())
                yield Fact(f"values of {tensor.name}", found == wanted, True)

    def _number(self, key: str) -> Any:
        """A number of the architecture's metadata, or CheckpointError that names the key."""
        key = f"{self._architecture}.{key}"
        value = self._file.metadata.get(key)
        if not isinstance(value, int | float) or value <= 0:
            raise CheckpointError(
                f"{self._file.path}: {key} is {value!r}, no number above 0", hint="convert again"
            )
        return value

    def close(self) -> None:
        self._file.close()
