"""A recipe decides the storage of every weight, encodes it, and can be written down and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest

from converters.decoder import Attention, Decoder, GatedMlp, Layer, Rope, Rows, Weight
from converters.errors import CheckpointError, UnsupportedError
from quant import recipe as recipes
from quant.blocks import FORMATS, Blocks
from quant.recipe import Recipe


def weight(name: str, *shape: int) -> Weight:
    return Weight(name, shape, (Rows(f"model.{name}.weight", 0, shape[0]),))


def decoder(hidden: int = 64, *, tied: bool = False) -> Decoder:
    def layer(i: int) -> Layer:
        at = f"layers.{i}"
        return Layer(
            weight(f"{at}.input_norm", hidden),
            *(weight(f"{at}.attention.{n}", hidden, hidden) for n in "qkvo"),
            weight(f"{at}.post_attention_norm", hidden),
            GatedMlp(
                *(weight(f"{at}.mlp.{n}", 96, hidden) for n in ("gate", "up")),
                weight(f"{at}.mlp.down", hidden, 96),
            ),
        )

    embedding = weight("embedding", 100, hidden)
    return Decoder(
        "phi3", "Phi3ForCausalLM", 100, hidden, 96, 512, 1e-5, Rope(1e4, 16, 512),
        Attention(4, 4, 16, 0.25, None), embedding, (layer(0), layer(1)), weight("final_norm", hidden),
        embedding if tied else weight("lm_head", 100, hidden), 1, (2,), None,
    )  # fmt: skip


PRESETS = get_args(recipes.Precision)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_decide_every_weight(name: Any) -> None:
    recipe = Recipe.preset(name)
    for w in decoder().weights():
        expected = name if w.is_matrix else "f32"
        if name == "int4" and w.name in ("embedding", "lm_head"):
            expected = "int8"
        assert recipe.storage(w) == expected, w.name
    assert recipe.notes(decoder()) == recipe.notes(decoder(tied=True)) == []


@pytest.mark.parametrize("name", PRESETS)
def test_data_goes_out_and_comes_back(name: Any) -> None:
    recipe = Recipe.preset(name)
    assert Recipe.from_data(json.loads(json.dumps(recipe.to_data()))) == recipe


def test_the_first_rule_that_matches_decides() -> None:
    recipe = Recipe.from_data(
        {
            "name": "mine",
            "rules": [
                {"pattern": "layers.0.*", "storage": "bf16", "method": "cast"},
                {"pattern": "layers.*.attention.[qk]", "storage": "int8", "method": "rtn"},
                {"pattern": "*", "storage": "int4_asym", "method": "rtn"},
                {"pattern": "layers.9.*", "storage": "f16", "method": "cast"},
            ],
        }
    )
    storages = [
        recipe.storage(weight(name, 64, 64)) for name in ("layers.0.attention.q", "layers.1.attention.q")
    ]
    assert storages == ["bf16", "int8"]
    assert recipe.storage(weight("layers.1.attention.v", 64, 64)) == "int4_asym"
    assert recipe.notes(decoder()) == ["recipe mine: the rule for layers.9.* decides no weight of this model"]


def test_columns_that_make_no_blocks_fall_back_to_f16_and_are_noted() -> None:
    recipe, model = Recipe.preset("int4"), decoder(hidden=48)
    assert recipe.storage(model.layers[0].q) == "f16"
    assert recipe.storage(model.layers[0].dense.down) == "int4"
    notes = recipe.notes(model)
    assert "embedding: f16 instead of int8, 48 columns are no multiple of 32" in notes
    assert len(notes) == 2 + 6
    assert recipe.encode(model.layers[0].q, np.ones((2, 48), np.float32)).dtype == np.float16  # type: ignore[union-attr]


@pytest.mark.parametrize("storage", get_args(recipes.Storage))
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_encode_gives_the_storage_and_decode_its_values(storage: Any, dtype: Any) -> None:
    method = "rtn" if storage in FORMATS else "cast"
    recipe = Recipe.from_data(
        {"name": "x", "rules": [{"pattern": "*", "storage": storage, "method": method}]}
    )
    raw = (np.random.default_rng(0).standard_normal((5, 64)) * 0.02).astype(dtype)
    w = weight("w", 5, 64)
    encoded = recipe.encode(w, raw)
    decoded = recipe.decode(encoded)
    assert decoded.dtype == np.float32
    assert decoded.shape == (5, 64)
    if isinstance(encoded, Blocks):
        assert encoded.format.name == storage
    else:
        assert encoded.nbytes == 5 * 64 * {"f32": 4, "f16": 2, "bf16": 2}[storage]
        exact = raw.astype(np.float32)
        half_ulp = {"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8}[storage]
        # Below 2^-14 float16 has a fixed step of 2^-24.
        assert (np.abs(decoded - exact) <= np.abs(exact) * half_ulp + 2.0**-25 * (storage == "f16")).all()


def test_vectors_are_f32() -> None:
    norm = weight("final_norm", 64)
    encoded = Recipe.preset("int4").encode(norm, np.full(64, 1.5, ml_dtypes.bfloat16))
    assert isinstance(encoded, np.ndarray)
    assert encoded.dtype == np.float32


def test_f16_overflow_is_refused_by_name() -> None:
    raw = np.zeros((4, 64), np.float32)
    raw[2, 5] = 65504
    w = weight("layers.0.mlp.down", 400, 64)
    recipe = Recipe.preset("f16")
    assert recipe.encode(w, raw)[2, 5] == 65504  # type: ignore[index]
    raw[2, 5] = -65505
    with pytest.raises(UnsupportedError) as refusal:
        recipe.encode(w, raw, start=300)
    assert refusal.value.cause == (
        "layers.0.mlp.down row 302 column 5 is -65505, too large for f16 (tensor model.layers.0.mlp.down.weight)"
    )
    assert "--precision f32" in refusal.value.hint
    assert Recipe.preset("bf16").encode(w, raw)[2, 5] == ml_dtypes.bfloat16(-65536)  # type: ignore[index]
    raw[2, 5] = 3.4e38
    with pytest.raises(UnsupportedError, match="too large for bf16"):
        Recipe.preset("bf16").encode(w, raw)
    with pytest.raises(UnsupportedError, match="too large for int8"):
        Recipe.preset("int8").encode(w, raw)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_damaged_weight_is_named(name: Any, bad: float) -> None:
    raw = np.zeros((4, 64), ml_dtypes.bfloat16)
    raw[3, 9] = bad
    with pytest.raises(CheckpointError, match=r"^layers\.1\.o row 13 column 9 is -?(nan|inf) \(tensor model"):
        Recipe.preset(name).encode(weight("layers.1.o", 40, 64), raw, start=10)
    with pytest.raises(CheckpointError, match=r"^final_norm row 1 is"):
        Recipe.preset(name).encode(weight("final_norm", 2), np.array([0, bad]))


GOOD_RULE = {"pattern": "*", "storage": "int4", "method": "rtn"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "exactly the keys name and rules"),
        ({"rules": []}, "exactly the keys name and rules"),
        ({"name": "x", "rules": [GOOD_RULE], "extra": 1}, "exactly the keys name and rules"),
        ({"name": "x", "rules": []}, "rules a list that is not empty"),
        ({"name": 3, "rules": [GOOD_RULE]}, "name must be a string"),
        ({"name": "x", "rules": [GOOD_RULE, 7]}, "rule 2 needs exactly the keys"),
        ({"name": "x", "rules": [GOOD_RULE | {"blocks": 32}]}, "rule 1 needs exactly the keys"),
        ({"name": "x", "rules": [GOOD_RULE | {"pattern": ""}]}, "pattern must be a string"),
        ({"name": "x", "rules": [GOOD_RULE | {"storage": "int3"}]}, "storage is 'int3', not one of f32, f16"),
        ({"name": "x", "rules": [GOOD_RULE | {"storage": ["int4"]}]}, "storage is"),
        ({"name": "x", "rules": [GOOD_RULE | {"method": "cast"}]}, "method is 'cast', but int4 takes 'rtn'"),
    ],
)
def test_what_is_no_recipe_is_refused_and_says_where(data: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match="not a recipe: ") as refusal:
        Recipe.from_data(data)
    assert message in refusal.value.cause
    assert refusal.value.hint


def test_a_recipe_file_is_toml_or_json(tmp_path: Path) -> None:
    expected = Recipe.from_data({"name": "mine", "rules": [GOOD_RULE]})
    json_file, toml_file = tmp_path / "r.json", tmp_path / "r.toml"
    json_file.write_text(json.dumps(expected.to_data()))
    toml_file.write_text('name = "mine"\n[[rules]]\npattern = "*"\nstorage = "int4"\nmethod = "rtn"\n')
    assert Recipe.load(json_file) == Recipe.load(toml_file) == expected
    toml_file.write_text("name =")
    with pytest.raises(UnsupportedError, match="neither TOML nor JSON"):
        Recipe.load(toml_file)
    with pytest.raises(UnsupportedError, match="cannot be read"):
        Recipe.load(tmp_path / "none.json")


def test_an_unknown_preset_and_a_weight_without_a_rule_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no precision is called 'int2'"):
        Recipe.preset("int2")  # type: ignore[arg-type]
    partial = Recipe.from_data({"name": "part", "rules": [GOOD_RULE | {"pattern": "layers.*"}]})
    with pytest.raises(UnsupportedError, match="no rule of recipe part matches weight embedding"):
        partial.storage(weight("embedding", 4, 64))


def test_attention_of_a_model_with_experts_keeps_8_bits_at_int4() -> None:
    recipe = Recipe.preset("int4", experts=True)
    assert recipe.storage(weight("layers.3.attention.o", 64, 64)) == "int8"
    assert recipe.storage(weight("layers.3.moe.15.down", 64, 96)) == "int4"
    assert Recipe.preset("int8", experts=True) == Recipe.preset("int8")


def test_a_router_is_never_rounded() -> None:
    for name in PRESETS:
        assert Recipe.preset(name).storage(weight("layers.3.moe.router", 16, 64)) == "f32"
