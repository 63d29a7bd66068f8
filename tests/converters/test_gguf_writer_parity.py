"""A GGUF of ours in llama.cpp computes what transformers computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.random_checkpoint import SHAPES
from converters import gguf
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from edge.runtimes import open_runtime
from quant.recipe import Recipe, Rule
from tests.converters.gguf_support import llama, write_gguf

Tiny = Callable[..., Path]
LOADABLE = [
    "phi3-mini-4k",
    "phi3-mini-128k",
    "phi3-medium",
    "phi3.5-mini",
    "phi4",
    "phi4-mini",
    "odd-vocab",
    "uneven",
]
# Both sides sum in float32 in another order; measured 7e-6 for logits of about 5. A wrong factor gives > 0.1.
FLOAT = 1e-4


def reference(directory: Path, ids: list[int], weights: dict[str, NDArray[np.float32]] | None = None) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    if weights:
        model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def some_ids(count: int, vocab: int = 640) -> list[int]:
    return np.random.default_rng(1).integers(0, vocab, count).tolist()


@pytest.mark.parametrize("shape", LOADABLE)
def test_float32_matches_transformers_in_prefill_chunks_and_decode(
    tiny: Tiny, tmp_path: Path, shape: str
) -> None:
    directory, out = tiny(shape), tmp_path / "m.gguf"
    write_gguf(directory, out, Recipe.preset("f32"), name=shape)
    ids = some_ids(48)
    wanted = reference(directory, ids)
    with llama(out) as model:
        for chunks in ([ids], [ids[:7], ids[7:30], ids[30:]], [ids[:20], *([i] for i in ids[20:])]):
            np.testing.assert_allclose(model.logits(chunks), wanted, atol=FLOAT, rtol=0)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "rotated", "inner"),
    [(1, 1, 25, 0.25, 160), (7, 7, 6, 1.0, 33), (6, 2, 80, 0.75, 100), (3, 1, 128, 0.5, 32)],
)
def test_shapes_that_no_published_model_has(
    tiny: Tiny, tmp_path: Path, heads: int, kv_heads: int, head_dim: int, rotated: float, inner: int
) -> None:
    directory = tiny(
        "phi4",
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        hidden_size=heads * head_dim,
        partial_rotary_factor=rotated,
        intermediate_size=inner,
        num_hidden_layers=1,
    )
    write_gguf(directory, tmp_path / "m.gguf", Recipe.preset("f32"))
    ids = some_ids(32)
    with llama(tmp_path / "m.gguf") as model:
        found = model.logits([ids[:15], ids[15:]])
    np.testing.assert_allclose(found, reference(directory, ids), atol=FLOAT, rtol=0)


def test_every_shape_is_loadable_or_refused_by_name() -> None:
    assert {*LOADABLE, "odd-heads", "phi4-mini-full", "1b"} == set(SHAPES)


# llama.cpp rounds the *activations* of a matrix product to the type of its weights: float16 and bfloat16 to
# themselves, the block formats to 8 bits a value. So logits (standard deviation 1.06) are compared with
# transformers on the very weights in the file, root mean square, within about twice what was measured: 0.0009,
# 0.007, and 0.027 for all block formats.
@pytest.mark.parametrize(
    ("storage", "tolerance"),
    [("f16", 0.002), ("bf16", 0.015), ("int8", 0.06), ("int5", 0.06), ("int4", 0.06), ("int4_asym", 0.06)],
)
@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi4-mini"])
def test_stored_weights_mean_what_they_mean_to_transformers(
    tiny: Tiny, tmp_path: Path, shape: str, storage: Any, tolerance: float
) -> None:
    directory, out = tiny(shape), tmp_path / "m.gguf"
    method = "cast" if storage in ("f16", "bf16") else "rtn"
    recipe = Recipe("all", (Rule("*", storage, method),))
    decoder = write_gguf(directory, out, recipe)
    stored = gguf.open_stored(out, decoder, recipe)
    ids = some_ids(48)
    wanted = reference(directory, ids, state_dict(decoder, stored))
    stored.close()
    with llama(out) as model:
        found = model.logits([ids])
    assert np.sqrt(np.mean((found - wanted) ** 2)) < tolerance


def state_dict(decoder: Decoder, stored: Any) -> dict[str, NDArray[np.float32]]:
    def whole(*weights: Any) -> NDArray[np.float32]:
        return np.concatenate([stored.rows(w, 0, w.rows) for w in weights])

    out = {
        "model.embed_tokens.weight": whole(decoder.embedding),
        "model.norm.weight": whole(decoder.final_norm),
    }
    out["lm_head.weight"] = whole(decoder.lm_head)
    for i, layer in enumerate(decoder.layers):
        out |= {
            f"model.layers.{i}.input_layernorm.weight": whole(layer.input_norm),
            f"model.layers.{i}.self_attn.qkv_proj.weight": whole(layer.q, layer.k, layer.v),
            f"model.layers.{i}.self_attn.o_proj.weight": whole(layer.o),
            f"model.layers.{i}.post_attention_layernorm.weight": whole(layer.post_attention_norm),
            f"model.layers.{i}.mlp.gate_up_proj.weight": whole(layer.dense.gate, layer.dense.up),
            f"model.layers.{i}.mlp.down_proj.weight": whole(layer.dense.down),
        }
    return out


def test_q_k_and_v_may_be_stored_apart(tiny: Tiny, tmp_path: Path) -> None:
    directory, out = tiny("phi4-mini"), tmp_path / "m.gguf"
    recipe = Recipe("v", (Rule("*.attention.v", "f16", "cast"), Rule("*", "f32", "cast")))
    write_gguf(directory, out, recipe)
    ids = some_ids(20)
    with llama(out) as model:
        # Only v is rounded, to 11 bits.
        np.testing.assert_allclose(model.logits([ids]), reference(directory, ids), atol=0.01)


def test_longrope_is_right_up_to_4096(tiny: Tiny, tmp_path: Path) -> None:
    directory, out = tiny("phi4-mini"), tmp_path / "m.gguf"
    write_gguf(directory, out, Recipe.preset("f32"))
    ids = some_ids(4096)
    wanted = reference(directory, ids)
    with llama(out) as model:
        found = model.logits([ids[i : i + 512] for i in range(0, 4096, 512)], context=4096)
    # llama.cpp multiplies the angle up in float32: at position 4096 that is 5e-4 in radians, and in a logit.
    np.testing.assert_allclose(found, wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("original", [256, 200])
def test_longrope_is_right_up_to_the_cap_and_would_be_wrong_past_it(
    tiny: Tiny, tmp_path: Path, original: int
) -> None:
    """200 is no multiple of 256: llama.cpp makes room for 256, and must still take the short factors."""
    long = {
        "original_max_position_embeddings": original,
        "max_position_embeddings": 512,
        "sliding_window": None,
    }
    directory, out = tiny("phi3-mini-128k", **long), tmp_path / "m.gguf"
    decoder = write_gguf(directory, out, Recipe.preset("f32"))
    limit, reason = gguf.context_limit(decoder)
    assert (limit, "LongRoPE" in (reason or "")) == (original, True)
    ids = some_ids(original)
    wanted = reference(directory, ids)
    with llama(out) as model:
        np.testing.assert_allclose(model.logits([ids], context=limit), wanted, atol=FLOAT, rtol=0)
        # What the cap is for. Should this fail, llama.cpp has learnt it and the cap can go.
        assert np.abs(model.logits([ids], context=512) - wanted).max() > 0.01


def test_the_window_is_right_up_to_the_cap_and_would_be_wrong_past_it(tiny: Tiny, tmp_path: Path) -> None:
    directory, out = tiny("phi3-mini-4k", sliding_window=63), tmp_path / "m.gguf"
    decoder = write_gguf(directory, out, Recipe.preset("f32"))
    limit, reason = gguf.context_limit(decoder)
    assert (limit, "window" in (reason or "")) == (63, True)
    ids = some_ids(80)
    wanted = reference(directory, ids)
    with llama(out) as model:
        found = model.logits([ids])
        assert model.metadata("phi3.context_length") == "63"
    np.testing.assert_allclose(found[:63], wanted[:63], atol=FLOAT, rtol=0)
    assert np.abs(found[63:] - wanted[63:]).max() > 0.01
    # llama.cpp made room for 256; our runtime holds to what the file says.
    runtime = open_runtime(out, threads=1)
    assert runtime.teacher_forced(ids[:63]).shape == (63, 640)
    with pytest.raises(UnsupportedError, match="63"):
        runtime.append(ids[63:64])
    runtime.close()


def test_rope_table_is_what_the_file_asks_for(tiny: Tiny, tmp_path: Path) -> None:
    """Against angles in float64; float32's running product is good to 1e-4 at position 4095."""
    directory, out = tiny("phi4-mini"), tmp_path / "m.gguf"
    recipe = Recipe.preset("f16")
    decoder = write_gguf(directory, out, recipe)
    stored = gguf.open_stored(out, decoder, recipe)
    positions = np.array([0, 1, 100, 4095])
    cos, sin = stored.rope_table(4096, positions)
    rope = decoder.rope
    inverse = 1 / (np.array(rope.short_factors) * rope.theta ** (np.arange(0, rope.dim, 2) / rope.dim))
    angle = positions[:, None] * inverse
    np.testing.assert_allclose(cos, np.cos(angle) * rope.attention_factor, atol=1e-3)
    np.testing.assert_allclose(sin, np.sin(angle) * rope.attention_factor, atol=1e-3)
    stored.close()
