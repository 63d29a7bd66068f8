"""describe(): every tensor and every config key accounted for, or an error that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, Phi3ForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from benchmarks.random_checkpoint import SHAPES
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import CheckpointError, EdgeError, UnsupportedError
from converters.models import describe, supported
from tests.checkpoints import ABSENT, altered

Tiny = Callable[..., Path]
TINY_SHAPES = [name for name, shape in SHAPES.items() if shape["vocab_size"] < 2000]
QKV = "model.layers.0.self_attn.qkv_proj.weight"


def read(directory: Path) -> Decoder:
    with Checkpoint.open(directory) as checkpoint:
        return describe(checkpoint)


@pytest.mark.parametrize("name", TINY_SHAPES)
def test_every_row_of_every_tensor_belongs_to_exactly_one_weight(tiny: Tiny, name: str) -> None:
    with Checkpoint.open(tiny(name)) as checkpoint:
        decoder = describe(checkpoint)
        owned: dict[str, list[range]] = {}
        for weight in decoder.weights():
            assert sum(part.stop - part.start for part in weight.parts) == weight.rows
            for part in weight.parts:
                owned.setdefault(part.tensor, []).append(range(part.start, part.stop))
        assert owned.keys() == checkpoint.tensors.keys()
        for tensor, ranges in owned.items():
            rows = [row for r in sorted(ranges, key=lambda r: r.start) for row in r]
            assert rows == list(range(checkpoint.tensors[tensor].shape[0])), tensor


@pytest.mark.parametrize("name", TINY_SHAPES)
def test_sizes_are_those_of_transformers(tiny: Tiny, name: str) -> None:
    decoder = read(tiny(name))
    model = Phi3ForCausalLM.from_pretrained(tiny(name))
    assert decoder.parameters == sum(p.numel() for p in model.parameters())
    assert decoder.tied == (model.lm_head.weight is model.model.embed_tokens.weight)
    attention = model.model.layers[0].self_attn
    assert decoder.attention.head_dim == attention.head_dim
    assert decoder.attention.scale == attention.scaling
    assert len({weight.name for weight in decoder.weights()}) == sum(1 for _ in decoder.weights())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_bias", True),
        ("mlp_bias", True),
        ("lm_head_bias", True),
        ("hidden_act", "gelu"),
        ("full_attn_mod", 2),
        ("interpolate_factor", 4),
        ("quantization_config", {"quant_method": "awq"}),
        ("num_local_experts", 16),
        ("logit_softcap", 30.0),
        ("some_new_key", None),
        ("architectures", ["Phi3ForSequenceClassification"]),
        ("is_encoder_decoder", True),
    ],
)
def test_a_key_that_changes_the_maths_is_named(tiny: Tiny, tmp_path: Path, key: str, value: Any) -> None:
    directory = altered(tiny("phi3-mini-4k"), tmp_path / "c", {key: value})
    with pytest.raises(UnsupportedError) as caught:
        read(directory)
    assert key in caught.value.cause
    if isinstance(value, int | float | str):
        assert str(value) in caught.value.cause


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", ABSENT),
        ("hidden_size", 129),
        ("hidden_size", "128"),
        ("vocab_size", 641),
        ("num_attention_heads", 0),
        ("num_attention_heads", True),
        ("num_hidden_layers", 3),
        ("num_key_value_heads", 3),
        ("intermediate_size", -1),
        ("rms_norm_eps", 0),
        ("tie_word_embeddings", "yes"),
        ("eos_token_id", 640),
        ("eos_token_id", [1, -1]),
        ("bos_token_id", [1, 2]),
        ("sliding_window", 0),
        ("model_type", ABSENT),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(tiny: Tiny, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError):
        read(altered(tiny("phi3-mini-4k"), tmp_path / "c", {key: value}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
) | st.sampled_from([10**4000, -(10**400), 2**63, 1e300, 5e-324, [1.0] * 12, "longrope", "su"])
ROPE_KEYS = ["type", "rope_type", "short_factor", "long_factor", "factor", "attention_factor", "rope_theta"]


@given(
    config=st.dictionaries(
        st.sampled_from([*sorted(SHAPES["phi4-mini"]), "head_dim", "x"]), JSON, max_size=3
    ),
    rope=st.dictionaries(st.sampled_from([*ROPE_KEYS, "partial_rotary_factor"]), JSON, max_size=3),
)
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_config_escapes_the_errors_for_people(
    tiny: Tiny, config: dict[str, Any], rope: dict[str, Any]
) -> None:
    scaling = {"rope_scaling": SHAPES["phi4-mini"]["rope_scaling"] | rope}
    with Checkpoint.open(tiny("phi4-mini")) as checkpoint:
        checkpoint.config.update(scaling | config)
        cause = ""
        try:
            describe(checkpoint)
        except EdgeError as error:
            cause = error.cause
    assert "\n" not in cause
    assert len(cause) < 600


def test_one_layer_less_than_the_tensors_is_not_a_smaller_model(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"model\.layers\.1\."):
        read(altered(tiny("phi3-mini-4k"), tmp_path / "c", {"num_hidden_layers": 1}))


@pytest.mark.parametrize(
    ("tensor", "value", "error"),
    [
        (QKV, None, CheckpointError),
        ("model.norm.weight", None, CheckpointError),
        ("lm_head.weight", None, CheckpointError),
        (QKV, torch.zeros(384, 127), CheckpointError),
        ("model.layers.1.mlp.down_proj.weight", torch.zeros(256, 128), CheckpointError),
        ("model.layers.0.self_attn.qkv_proj.bias", torch.zeros(384), UnsupportedError),
        ("model.layers.0.self_attn.qkv_proj.lora_A.weight", torch.zeros(4, 128), UnsupportedError),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tiny: Tiny, tmp_path: Path, tensor: str, value: torch.Tensor | None, error: type[Exception]
) -> None:
    with pytest.raises(error, match=tensor.replace(".", r"\.")):
        read(altered(tiny("phi3-mini-4k"), tmp_path / "c", tensors={tensor: value}))


@pytest.mark.parametrize("legacy", ["su", "yarn"])
def test_the_first_names_of_longrope_mean_longrope(tiny: Tiny, tmp_path: Path, legacy: str) -> None:
    source = tiny("phi3-mini-128k")
    scaling = SHAPES["phi3-mini-128k"]["rope_scaling"] | {"type": legacy}
    assert read(altered(source, tmp_path / "c", {"rope_scaling": scaling})) == read(source)


@pytest.mark.parametrize("name", ["phi3-mini-4k", "phi4", "phi4-mini", "odd-heads"])
def test_the_layout_that_transformers_5_saves_reads_alike(tiny: Tiny, tmp_path: Path, name: str) -> None:
    model = Phi3ForCausalLM.from_pretrained(tiny(name))
    model.save_pretrained(tmp_path)
    assert "rope_parameters" in json.loads((tmp_path / "config.json").read_text())
    assert read(tmp_path).rope == read(tiny(name)).rope


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"type": "linear", "factor": 2.0}, UnsupportedError, "linear"),
        ({"short_mscale": 1.2}, UnsupportedError, "short_mscale"),
        ({"short_factor": [1.0] * 11}, CheckpointError, "short_factor"),
        ({"long_factor": [0.0] * 12}, CheckpointError, "long_factor"),
        ({"long_factor": None}, CheckpointError, "long_factor"),
        ({"rope_theta": 500.0}, CheckpointError, "rope_theta"),
        ({"original_max_position_embeddings": 8192}, CheckpointError, "original_max_position_embeddings"),
    ],
)
def test_a_wrong_rope_is_named(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], error: type[Exception], named: str
) -> None:
    scaling = SHAPES["phi4-mini"]["rope_scaling"] | change
    with pytest.raises(error, match=named):
        read(altered(tiny("phi4-mini"), tmp_path / "c", {"rope_scaling": scaling}))


def test_two_rope_layouts_at_once_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    new = {"rope_type": "default", "rope_theta": 10000.0}
    with pytest.raises(CheckpointError, match="rope_parameters"):
        read(altered(tiny("phi4-mini"), tmp_path / "c", {"rope_parameters": new}))


def test_an_odd_number_of_rotary_channels_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="partial_rotary_factor"):
        read(altered(tiny("phi4"), tmp_path / "c", {"partial_rotary_factor": 0.66}))


@pytest.mark.parametrize(
    "change", [{}, {"factor": 8.0}, {"attention_factor": 1.25}, {"factor": 8.0, "attention_factor": 0.5}]
)
def test_the_attention_factor_is_that_of_transformers(
    tiny: Tiny, tmp_path: Path, change: dict[str, float]
) -> None:
    scaling = SHAPES["phi4-mini"]["rope_scaling"] | change
    directory = altered(tiny("phi4-mini"), tmp_path / "c", {"rope_scaling": scaling})
    _, wanted = ROPE_INIT_FUNCTIONS["longrope"](AutoConfig.from_pretrained(directory))
    assert read(directory).rope.attention_factor == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("window", "wanted"), [(4095, 4095), (4096, None), (262144, None), (None, None)])
def test_a_window_of_the_whole_context_is_none(
    tiny: Tiny, tmp_path: Path, window: int | None, wanted: int | None
) -> None:
    directory = altered(tiny("phi3-mini-4k"), tmp_path / "c", {"sliding_window": window})
    assert read(directory).attention.window == wanted


def test_stop_tokens_come_from_both_files_once(tiny: Tiny, tmp_path: Path) -> None:
    directory = altered(tiny("phi4-mini"), tmp_path / "c", {"eos_token_id": [5, 7]})
    (directory / "generation_config.json").write_text('{"eos_token_id": [9, 5]}')
    assert read(directory).eos_token_ids == (5, 7, 9)
    (directory / "generation_config.json").unlink()
    assert read(directory).eos_token_ids == (5, 7)


def test_a_saved_copy_of_a_tied_embedding_is_read_and_stays_tied(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("phi4-mini")
    copy = load_file(source / "model.safetensors")["model.embed_tokens.weight"].clone()
    directory = altered(source, tmp_path / "c", tensors={"lm_head.weight": copy})
    with Checkpoint.open(directory) as checkpoint:
        assert describe(checkpoint).tied
        assert "lm_head.weight" not in checkpoint.unread()


@pytest.mark.parametrize("model_type", ["llama", "../phi3", "phi3.describe", ""])
def test_an_unknown_model_type_is_named(tiny: Tiny, tmp_path: Path, model_type: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        read(altered(tiny("phi4"), tmp_path / "c", {"model_type": model_type}))
    assert json.dumps(model_type) in caught.value.cause
    assert "phi3" in caught.value.cause


def test_a_package_can_bring_an_architecture(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "outside-1.dist-info").mkdir(parents=True)
    (site / "outside-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: outside\nVersion: 1\n"
    )
    entry = "[edge.models]\nfromoutside = outside_arch:read\n"
    (site / "outside-1.dist-info" / "entry_points.txt").write_text(entry)
    (site / "outside_arch.py").write_text("from converters.models.phi3 import describe as read\n")
    monkeypatch.syspath_prepend(site)
    directory = altered(tiny("phi4"), tmp_path / "c", {"model_type": "fromoutside"})
    assert "fromoutside" in supported()
    assert read(directory).layers == read(tiny("phi4")).layers
