"""What a DirectML folder is made of, what is refused, and what the proof of stored weights finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.checkpoint import Checkpoint
from converters.errors import BundleError, UnsupportedError
from converters.models import describe
from converters.onnx import dml
from converters.onnx.dml.config import dml_config
from converters.onnx.reader import tensor_bytes
from converters.verify import check_stored
from quant.recipe import Recipe
from tests.converters.dml_support import convert
from tests.converters.onnx_support import uniform

Tiny = Callable[..., Path]
INT4 = Recipe.preset("int4")


def load(directory: Path) -> onnx.ModelProto:
    return onnx.load(directory / "model.onnx", load_external_data=False)


def faults(checkpoint: Path, directory: Path, recipe: Recipe, context_length: int = 256) -> tuple[str, ...]:
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        with dml.open_stored(directory, decoder, recipe) as stored:
            return check_stored(
                opened,
                decoder,
                stored,
                context_length=context_length,
                codec=lambda weight, start, raw: recipe.decode(recipe.encode(weight, raw, start=start)),
            ).faults


@pytest.mark.parametrize("name", ["int4", "int8", "f16"])
def test_files_are_as_large_as_planned_and_the_same_each_time(name: str, tiny: Tiny, tmp_path: Path) -> None:
    recipe = uniform(name)
    decoder = convert(tiny("phi4-mini"), tmp_path / "a", recipe)
    convert(tiny("phi4-mini"), tmp_path / "b", recipe)
    for file, size in dml.planned_files(decoder, recipe, 256).items():
        assert (tmp_path / "a" / file).stat().st_size == size, file
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert (
        dml.planned_bytes(decoder, recipe, context_length=256)
        == dml.planned_files(decoder, recipe, 256)["model.onnx.data"]
    )


def test_the_graph_is_as_directml_takes_it(tiny: Tiny, tmp_path: Path) -> None:
    decoder = convert(tiny("phi4-mini"), tmp_path, INT4)
    model = load(tmp_path)
    by_op: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        by_op.setdefault(node.op_type, []).append(node)
    assert not {"GatherBlockQuantized", "If", "Greater", "Where"} & set(by_op)
    for node in by_op["MatMulNBits"]:
        names = {attribute.name for attribute in node.attribute}
        assert len(node.input) == 4, "without zero points DirectML takes the codes as they are"
        assert "accuracy_level" not in names
    for node in by_op["GroupQueryAttention"]:
        values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        assert values["do_rotary"] == 0
        assert "local_window_size" not in values
        assert all(node.input[:3]), "DirectML reads query, key and value apart"
    rotations = by_op["RotaryEmbedding"]
    assert len(rotations) == 2 * len(decoder.layers)
    heads = [onnx.helper.get_node_attr_value(node, "num_heads") for node in rotations]
    assert heads == [6, 2] * len(decoder.layers)
    values_in = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}
    assert values_in.pop("input_ids") == values_in.pop("position_ids") == onnx.TensorProto.INT64
    assert values_in.pop("attention_mask") == onnx.TensorProto.INT64
    assert set(values_in.values()) == {onnx.TensorProto.FLOAT16}


def test_a_tied_embedding_is_stored_once(tiny: Tiny, tmp_path: Path) -> None:
    """Its codes serve the lookup and the logits; only its zero points are as tall, and no table in float16 is."""
    convert(tiny("phi4-mini", vocab_size=2000), tmp_path, INT4)
    tall = {
        tensor.name for tensor in load(tmp_path).graph.initializer if tensor.dims and tensor.dims[0] == 2000
    }
    assert tall == {"embedding.codes", "embedding.scales", "zero_points.int8.2000x6"}


def test_zero_points_of_one_shape_are_stored_once(tiny: Tiny, tmp_path: Path) -> None:
    convert(tiny("phi3-mini-4k"), tmp_path, INT4)
    zeros = [name for name in tensor_bytes(tmp_path) if name.startswith("zero_points.")]
    # Of q, k, v and o; of gate and up; of down; of lm_head.
    assert sorted(zeros) == [
        "zero_points.int4.128x4",
        "zero_points.int4.128x8",
        "zero_points.int4.256x4",
        "zero_points.int8.640x4",
    ]


def test_the_config_names_the_provider_and_the_positions(tiny: Tiny, tmp_path: Path) -> None:
    decoder = convert(tiny("phi4"), tmp_path, INT4)
    config = json.loads((tmp_path / "genai_config.json").read_text())
    assert config == dml_config(decoder, 256)
    graph = config["model"]["decoder"]
    assert graph["session_options"]["provider_options"] == [{"dml": {"enable_graph_capture": "1"}}]
    assert graph["inputs"]["position_ids"] == "position_ids"
    assert config["search"]["past_present_share_buffer"] is True


@pytest.mark.parametrize(
    ("shape", "overrides", "limit", "why"),
    [
        ("phi4", {}, 16384, None),
        ("phi3-mini-4k", {}, 2047, "no sliding window"),
        ("phi4-mini", {}, 4096, "LongRoPE"),
        ("phi4-mini", {"sliding_window": 100}, 100, "no sliding window"),
    ],
)
def test_the_context_ends_where_the_kernels_would_be_wrong(
    shape: str, overrides: dict[str, Any], limit: int, why: str | None, tiny: Tiny, tmp_path: Path
) -> None:
    with Checkpoint.open(tiny(shape, **overrides)) as opened:
        found, reason = dml.context_limit(describe(opened))
    assert found == limit
    assert (why in reason) if why else reason is None
    if why:
        with pytest.raises(UnsupportedError, match=why):
            convert(tiny(shape, **overrides), tmp_path, INT4, context_length=limit + 1)


@pytest.mark.parametrize(
    ("shape", "recipe", "overrides", "why"),
    [
        ("uneven", uniform("int8"), {}, "layers.0.attention.q has 5 blocks of 32 a row, an odd number"),
        ("phi4", uniform("f32"), {}, "embedding is stored as f32"),
        ("phi4", uniform("int4_asym"), {}, "embedding is stored as int4_asym"),
        ("odd-heads", uniform("f16"), {"head_dim": 20}, "20 channels is no multiple of 8"),
    ],
)
def test_what_has_no_right_form_is_refused(
    shape: str, recipe: Recipe, overrides: dict[str, Any], why: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=why):
        convert(tiny(shape, **overrides), tmp_path / "x", recipe)
    assert not (tmp_path / "x").exists()


def test_int8_lookups_alone_may_have_an_odd_number_of_blocks(tiny: Tiny, tmp_path: Path) -> None:
    """They need no zero points from the file."""
    recipe = Recipe("mixed", (*(r for r in INT4.rules if r.pattern == "embedding"), *uniform("int4").rules))
    convert(tiny("uneven"), tmp_path, recipe)
    assert faults(tiny("uneven"), tmp_path, recipe) == ()


def test_a_sound_variant_has_no_faults(tiny: Tiny, tmp_path: Path) -> None:
    for shape in ("phi4", "phi4-mini"):
        convert(tiny(shape), tmp_path / shape, INT4)
        assert faults(tiny(shape), tmp_path / shape, INT4) == ()


def _flip(directory: Path, tensor: str) -> None:
    """One bit of a tensor's first byte."""
    (proto,) = (each for each in load(directory).graph.initializer if each.name == tensor)
    offset = int(next(entry.value for entry in proto.external_data if entry.key == "offset"))
    with (directory / "model.onnx.data").open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        ("embedding.codes", "embedding: row 0"),
        ("layers.1.attention.k.codes", "layers.1.attention.k: row 0"),
        ("layers.0.mlp.down.scales", "layers.0.mlp.down: row 0"),
        ("zero_points.int8.640x6", "zero points that are wrong is 1, must be 0"),
    ],
)
def test_a_flipped_bit_is_found(tensor: str, fault: str, tiny: Tiny, tmp_path: Path) -> None:
    convert(tiny("phi4-mini"), tmp_path, INT4)
    _flip(tmp_path, tensor)
    (found,) = faults(tiny("phi4-mini"), tmp_path, INT4)
    assert fault in found


def _set(node: onnx.NodeProto, name: str, value: int | float) -> None:
    attribute = next(each for each in node.attribute if each.name == name)
    attribute.CopyFrom(onnx.helper.make_attribute(name, value))


@pytest.mark.parametrize(
    ("op", "change", "fault"),
    [
        ("MatMulNBits", lambda node: node.input.pop(), "zero points is missing"),
        ("RotaryEmbedding", lambda node: _set(node, "rotary_embedding_dim", 32), "embedding_dim is 32, must be 24"),
        ("GroupQueryAttention", lambda node: _set(node, "scale", 1.0), "scale is 1, must be"),
        ("GroupQueryAttention", lambda node: node.attribute.append(onnx.helper.make_attribute("local_window_size", 5)),
         "local_window_size is 5, must be None"),
        ("SkipSimplifiedLayerNormalization", lambda node: _set(node, "epsilon", 1e-3), "epsilon is 0.001"),
    ],
)  # fmt: skip
def test_an_altered_graph_is_found(
    op: str, change: Callable[[onnx.NodeProto], object], fault: str, tiny: Tiny, tmp_path: Path
) -> None:
    convert(tiny("phi4-mini"), tmp_path, INT4)
    model = load(tmp_path)
    change(next(node for node in model.graph.node if node.op_type == op))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert any(fault in found for found in faults(tiny("phi4-mini"), tmp_path, INT4))


def test_an_altered_config_is_found(tiny: Tiny, tmp_path: Path) -> None:
    convert(tiny("phi4-mini"), tmp_path, INT4)
    file = tmp_path / "genai_config.json"
    config = json.loads(file.read_text())
    config["model"]["decoder"]["session_options"]["provider_options"] = []
    file.write_text(json.dumps(config))
    (found,) = faults(tiny("phi4-mini"), tmp_path, INT4)
    assert "provider_options" in found


def test_a_data_file_that_ends_early_is_damaged(tiny: Tiny, tmp_path: Path) -> None:
    convert(tiny("phi4-mini"), tmp_path, INT4)
    with (tmp_path / "model.onnx.data").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(BundleError, match="ends inside"):
        faults(tiny("phi4-mini"), tmp_path, INT4)


def test_rows_of_a_weight_are_all_needed(tiny: Tiny, tmp_path: Path) -> None:
    with Checkpoint.open(tiny("phi4")) as opened:
        decoder = describe(opened)
        writer = dml.open_writer(
            decoder, INT4, tmp_path, context_length=64, checkpoint_directory=opened.directory
        )
        weight = decoder.embedding
        writer.write(weight, 0, INT4.encode(weight, opened.weight_rows(weight, 0, 5)))
    with pytest.raises(ValueError, match=r"embedding: row 5 was never written"):
        writer.close()
    assert np.fromfile(tmp_path / "model.onnx.data", np.uint8).size > 0
