"""The numpy reference against transformers in float32, and its memory.

Both compute in float32 in different orders of summation: at logits of about 4 and these depths they differ by
some 5e-6, so 1e-4 leaves room for another BLAS and none for an error in the maths. Near position 4100
transformers' own angles, rounded to float32, are off by up to 4100 * 2**-24 = 2.4e-4 radians, which reaches
the logits as a few 1e-4: 1e-3 there. A wrong window, factor list or switch is off by more than 0.1.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import Phi3ForCausalLM

from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from converters import reference
from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.errors import CheckpointError
from converters.models import describe
from tests.checkpoints import altered

Tiny = Callable[..., Path]
TINY_SHAPES = [name for name, shape in SHAPES.items() if shape["vocab_size"] < 2000]
SHORT, LONG = 1e-4, 1e-3
# One layer with the true factor lists of Phi-4-mini, which need heads of 128 channels.
REAL_FACTORS: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "rope_scaling": SHAPES["phi4-mini-full"]["rope_scaling"],
    "vocab_size": 640,
}


def tokens(length: int, vocab: int = 640) -> list[int]:
    return np.random.default_rng(length).integers(0, vocab, length).tolist()


def ours(directory: Path, ids: list[int]) -> NDArray[np.float32]:
    with Checkpoint.open(directory) as checkpoint:
        return reference.logits(checkpoint, describe(checkpoint), ids)


@torch.inference_mode()
def theirs(directory: Path, ids: list[int]) -> NDArray[np.float32]:
    model = Phi3ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", TINY_SHAPES)
def test_equals_transformers_on_every_shape(tiny: Tiny, name: str) -> None:
    ids = tokens(40, SHAPES[name]["vocab_size"])
    assert distance(ours(tiny(name), ids), theirs(tiny(name), ids)) < SHORT


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_equals_transformers_in_every_stored_dtype(tiny: Tiny, dtype: str) -> None:
    directory = tiny("phi4-mini", dtype=dtype, shards=3)
    assert distance(ours(directory, tokens(16)), theirs(directory, tokens(16))) < SHORT


@given(data=st.data())
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_equals_transformers_on_drawn_shapes(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    kv_heads = data.draw(st.integers(1, 3))
    heads = kv_heads * data.draw(st.integers(1, 3))
    head_dim = 4 * data.draw(st.integers(1, 8))
    config = SHAPES["phi4"] | {
        "head_dim": head_dim,
        "hidden_size": heads * data.draw(st.integers(3, 20)),
        "intermediate_size": data.draw(st.integers(1, 70)),
        "num_attention_heads": heads,
        "num_hidden_layers": data.draw(st.integers(1, 3)),
        "num_key_value_heads": kv_heads,
        "partial_rotary_factor": data.draw(st.sampled_from([0.5, 1.0])),
        "rms_norm_eps": data.draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "sliding_window": data.draw(st.sampled_from([None, 1, 2, 7, 100])),
        "tie_word_embeddings": data.draw(st.booleans()),
        "vocab_size": data.draw(st.integers(3, 90)),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    directory = tmp_path_factory.mktemp("drawn")
    write_checkpoint(directory, config, dtype="f32", tokenizer=None)
    ids = tokens(data.draw(st.integers(1, 20)), config["vocab_size"])
    assert distance(ours(directory, ids), theirs(directory, ids)) < SHORT


@pytest.mark.parametrize("length", [4090, 4096, 4097, 4110])
def test_longrope_on_both_sides_of_the_switch(tiny: Tiny, length: int) -> None:
    directory = tiny("phi4-mini", **REAL_FACTORS)
    ids = tokens(length)
    wanted = theirs(directory, ids)
    assert distance(ours(directory, ids), wanted) < LONG
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        rope = decoder.rope
        swapped = dataclasses.replace(rope, short_factors=rope.long_factors, long_factors=rope.short_factors)
        other = reference.logits(checkpoint, dataclasses.replace(decoder, rope=swapped), ids)
    assert distance(other, wanted) > 0.1


@torch.inference_mode()
def test_generation_across_the_switch(tiny: Tiny) -> None:
    """transformers, decoding with its cache from 4093 to 4100 tokens, says at each step what we say."""
    directory = tiny("phi4-mini", **REAL_FACTORS)
    model = Phi3ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    start = tokens(4093)
    made = model.generate(
        torch.tensor([start]),
        do_sample=False,
        max_new_tokens=7,
        min_new_tokens=7,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = made.sequences[0].tolist()
    for step, scores in enumerate(made.logits):
        mine = ours(directory, ids[: len(start) + step])[-1]
        assert distance(mine, scores[0].numpy()) < LONG, len(start) + step


def test_the_window_of_phi_3_mini(tiny: Tiny) -> None:
    directory = tiny("phi3-mini-4k", hidden_size=64, num_attention_heads=2, num_key_value_heads=2)
    ids = tokens(2100)
    wanted = theirs(directory, ids)
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        assert decoder.attention.window == 2047
        mine = reference.logits(checkpoint, decoder, ids)
        unlimited = dataclasses.replace(decoder.attention, window=None)
        other = reference.logits(checkpoint, dataclasses.replace(decoder, attention=unlimited), ids)
    assert distance(mine, wanted) < LONG
    assert distance(other[:2047], mine[:2047]) < SHORT
    assert distance(other[2047:], mine[2047:]) > 0.1


def test_a_head_that_differs_from_a_tied_embedding_is_used(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = torch.randn(640, 192).to(torch.bfloat16)
    directory = altered(tiny("phi4-mini"), tmp_path / "c", tensors={"lm_head.weight": head})
    assert distance(ours(directory, tokens(16)), theirs(directory, tokens(16))) < 10 * SHORT  # logits of 40


@pytest.mark.parametrize("chunk", [64, 5000])
def test_chunk_size_does_not_matter(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    directory = tiny("phi3-mini-4k", sliding_window=7)
    whole = ours(directory, tokens(50))
    monkeypatch.setattr(reference, "CHUNK_BYTES", chunk)
    assert distance(ours(directory, tokens(50)), whole) < 1e-5


def test_memory_does_not_grow_with_depth(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "CHUNK_BYTES", 1 << 14)
    peaks = []
    for layers in (2, 16):
        directory = tiny("phi3-medium", num_hidden_layers=layers)
        with Checkpoint.open(directory) as checkpoint:
            decoder = describe(checkpoint)
            tracemalloc.start()
            reference.logits(checkpoint, decoder, tokens(8))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Fourteen more layers cost less than one of their matrices, the smallest.
    assert peaks[1] - peaks[0] < min(w.rows * w.shape[1] * 4 for w in decoder.weights() if w.is_matrix)


def test_transform_sees_every_row_once_and_decides_what_is_computed(tiny: Tiny) -> None:
    seen: dict[str, int] = {}

    def double_the_head(weight: Weight, start: int, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        seen[weight.name] = seen.get(weight.name, 0) + len(rows)
        return rows.astype(np.float32) * np.float32(2 if weight.name == "lm_head" else 1)

    directory = tiny("uneven")
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        plain = reference.logits(checkpoint, decoder, [3, 1, 3])
        doubled = reference.logits(checkpoint, decoder, [3, 1, 3], transform=double_the_head)
    assert np.array_equal(doubled, 2 * plain)
    assert seen == {w.name: w.rows for w in decoder.weights()} | {"embedding": 2}


@pytest.mark.parametrize("ids", [[], [-1], [640]])
def test_ids_outside_the_vocabulary_are_refused(tiny: Tiny, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="ids must be"):
        ours(tiny("phi4"), ids)


@pytest.mark.parametrize("name", ["phi4", "phi4-mini", "phi3-mini-4k"])
def test_many_windows_say_what_each_says_alone(tiny: Tiny, name: str) -> None:
    windows = np.random.default_rng(0).integers(0, 640, (3, 24))
    with Checkpoint.open(tiny(name)) as checkpoint:
        decoder = describe(checkpoint)
        read = dict(checkpoint.rows_read)
        hidden = reference.hidden_states(checkpoint, decoder, windows)
        # One read of every row of a layer, whatever the number of windows.
        for weight in decoder.layers[0].weights():
            for part in weight.parts:
                tensor = checkpoint.tensors[part.tensor]
                assert checkpoint.rows_read[part.tensor] - read.get(part.tensor, 0) == tensor.shape[0]
        together = reference.head_logits(checkpoint, decoder, hidden.reshape(72, -1)).reshape(3, 24, -1)
        for ids, found in zip(windows, together, strict=True):
            # The same sums in blocks of other sizes.
            np.testing.assert_allclose(
                found, reference.logits(checkpoint, decoder, ids.tolist()), rtol=0, atol=1e-5
            )


def test_activations_that_are_no_numbers_name_the_layer(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
        broken = decoder.layers[1].dense.down.name

        def transform(weight: Weight, start: int, rows: NDArray[np.generic]) -> NDArray[np.float32]:
            return rows.astype(np.float32) * (np.nan if weight.name == broken else 1)

        with pytest.raises(CheckpointError, match="not finite after layer 1"):
            reference.hidden_states(checkpoint, decoder, np.zeros((1, 4), np.int64), transform=transform)
