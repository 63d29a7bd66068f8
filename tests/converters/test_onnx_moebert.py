"""A MoEBERT decoder as ONNX: one expert for each token's id, against the torch module that was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from converters.checkpoint import Checkpoint
from converters.decoder import RoutedMlp
from converters.models import describe
from converters.onnx.stored import StoredOnnx
from converters.reference import hidden_states, logits
from quant.distill.models import load_model
from quant.distill.moebert_model import load_student, split_student, write_student
from quant.distill.moebert_split import Split, routing_tables
from tests.converters.onnx_support import (
    F32,
    TOLERANCE,
    Session,
    convert,
    generator,
    in_chunks,
    random_ids,
    through_codec,
    uniform,
)

Tiny = Callable[..., Path]
FEEDS = {"prefill": [40], "chunks": [17, 1, 22], "decode": [28] + [1] * 12}
SPLIT = Split(4, 64, 32)
SHAPES = ["phi4-mini", "phi3-mini-4k"]


@pytest.fixture(params=SHAPES)
def student(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> Path:
    return make_student(tiny(request.param, dtype="f32"), tmp_path / "student")


def make_student(source: Path, output: Path, split: Split = SPLIT) -> Path:
    """Its experts' weights disturbed, each its own way, as training does."""
    model = load_model(source, "decoder")
    layers, inner = model.config.num_hidden_layers, model.config.intermediate_size
    scores = np.random.default_rng(0).standard_normal((layers, inner))
    tables = routing_tables("hash", np.zeros(1, np.int64), model.config.vocab_size, split.experts, layers, 3)
    split_student(model, "decoder", split, scores, tables)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".experts." in name:
                parameter.add_(torch.randn_like(parameter) * 0.5 * parameter.std())
    output.mkdir()
    write_student(model, "decoder", split, json.loads((source / "config.json").read_text()), output)
    for file in source.iterdir():
        if not (output / file.name).exists() and file.suffix != ".safetensors":
            (output / file.name).write_bytes(file.read_bytes())
    return output


@torch.no_grad()
def oracle(directory: Path, ids: list[int]) -> np.ndarray:
    torch.set_num_threads(1)
    return np.asarray(load_student(directory)(torch.tensor([ids])).logits[0].numpy())


def test_the_reference_routes_as_torch(student: Path) -> None:
    with Checkpoint.open(student) as checkpoint:
        decoder = describe(checkpoint)
        ids = random_ids(decoder, 40)
        found = logits(checkpoint, decoder, ids)
        windows = np.array([ids[:20], ids[20:]])
        hidden = hidden_states(checkpoint, decoder, windows)
        assert set(checkpoint.unread()) <= {"model.embed_tokens.weight", "lm_head.weight"}
    expected = oracle(student, ids)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    model = load_student(student)
    with torch.no_grad():
        states = model.model(torch.from_numpy(windows)).last_hidden_state.numpy()
    np.testing.assert_allclose(hidden, states, rtol=0, atol=TOLERANCE)


def test_float_equals_torch_however_it_is_fed(student: Path, tmp_path: Path) -> None:
    decoder = convert(student, tmp_path / "onnx")
    ids = random_ids(decoder, 40)
    expected = oracle(student, ids)
    for feed, sizes in FEEDS.items():
        found = in_chunks(Session(tmp_path / "onnx"), ids, sizes)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=feed)


def test_each_token_has_one_expert_computed(tiny: Tiny, tmp_path: Path) -> None:
    """With every expert but one made not-a-number, tokens of that one are as they were: nothing else is multiplied
    and masked away."""
    student = make_student(tiny("phi4-mini", dtype="f32"), tmp_path / "student")
    decoder = convert(student, tmp_path / "onnx")
    mlp = decoder.layers[0].mlp
    assert isinstance(mlp, RoutedMlp)
    with Checkpoint.open(student) as checkpoint:
        tables = [checkpoint.read(f"model.layers.{i}.mlp.table") for i in range(decoder.depth)]
    alike = np.flatnonzero(np.all([table == 1 for table in tables], axis=0))[:12].tolist()
    assert len(alike) == 12
    before = in_chunks(Session(tmp_path / "onnx"), alike, [8, 1, 1, 1, 1])
    stored = StoredOnnx(tmp_path / "onnx", decoder, F32)
    stored.close()
    model = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(("moe.gate_up", "moe.down")):
            where = {entry.key: entry.value for entry in tensor.external_data}
            start, each = int(where["offset"]), int(where["length"]) // 4
            with (tmp_path / "onnx" / where["location"]).open("r+b") as file:
                for expert in (0, 2, 3):
                    file.seek(start + expert * each)
                    file.write(np.full(each // 4, np.nan, np.float32).tobytes())
    after = in_chunks(Session(tmp_path / "onnx"), alike, [8, 1, 1, 1, 1])
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("recipe", [F32, uniform("int4")], ids=["f32", "int4"])
def test_genai_prefills_and_decodes(tiny: Tiny, recipe: object, tmp_path: Path) -> None:
    student = make_student(tiny("phi4-mini", dtype="f32"), tmp_path / "student")
    decoder = convert(student, tmp_path / "onnx", recipe, accuracy_level=0)
    ids = random_ids(decoder, 40)
    expected = Session(tmp_path / "onnx").run(ids) if recipe is not F32 else oracle(student, ids)
    run = generator(tmp_path / "onnx", 64)
    run.append_tokens(np.array([ids[:30]], np.int32))
    np.testing.assert_allclose(run.get_output("logits")[0], expected[:30], rtol=0, atol=TOLERANCE)
    for position in range(30, 40):
        run.append_tokens(np.array([ids[position : position + 1]], np.int32))
        np.testing.assert_allclose(run.get_output("logits")[0, 0], expected[position], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("storage", ["int4", "int4_asym", "f16", "bf16"])
def test_blocks_equal_the_reference_on_their_values(storage: str, student: Path, tmp_path: Path) -> None:
    """accuracy_level 0, where nothing but the weights is rounded: through the codec that ships."""
    recipe = uniform(storage)
    decoder = convert(student, tmp_path / "onnx", recipe, accuracy_level=0)
    ids, values = random_ids(decoder, 24), through_codec(student, recipe)
    with Checkpoint.open(student) as checkpoint:
        expected = logits(
            checkpoint, decoder, ids, transform=lambda w, at, rows: values(w)[at : at + len(rows)]
        )
        assert np.abs(expected - logits(checkpoint, decoder, ids)).max() > 2e-3
    for sizes in ([24], [20, 1, 1, 1, 1]):
        found = in_chunks(Session(tmp_path / "onnx"), ids, sizes)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_a_graph_that_routes_otherwise_is_found(tiny: Tiny, tmp_path: Path) -> None:
    """Facts of the proof: the table of another layer, two experts, weights that are not made whole."""
    student = make_student(tiny("phi4-mini", dtype="f32"), tmp_path / "student")
    decoder = convert(student, tmp_path / "onnx")
    file = tmp_path / "onnx" / "model.onnx"
    whole = file.read_bytes()

    def wrong() -> list[str]:
        stored = StoredOnnx(tmp_path / "onnx", decoder, F32)
        facts = [fact for fact in stored.facts(256) if not isinstance(fact.expected, float)]
        found = [fact.key for fact in facts if fact.found != fact.expected]
        stored.close()
        return found

    assert wrong() == []
    for change in ("table", "ids", "k", "normalize_routing_weights"):
        model = onnx.load_from_string(whole)
        nodes = {node.name: node for node in model.graph.node}
        if change == "table":
            nodes["/layers.1.moe.expert"].input[0] = "layers.0.moe.table"
        elif change == "ids":
            nodes["/layers.1.moe.expert"].input[1] = "attention_mask"
        else:
            (attribute,) = (a for a in nodes["/layers.1.moe.out"].attribute if a.name == change)
            attribute.i = 3
        file.write_bytes(model.SerializeToString())
        assert len(wrong()) == 1, change
