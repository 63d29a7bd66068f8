"""A MoEBERT encoder in plain onnxruntime: parity with the torch module, and one expert a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from converters.bert_moebert import describe_bert
from converters.bert_reference import bert_logits
from converters.checkpoint import Checkpoint
from converters.onnx.bert_moebert import write_bert
from quant.distill.models import load_model
from quant.distill.moebert_model import load_student, split_student, write_student
from quant.distill.moebert_split import Split, routing_tables
from quant.recipe import Recipe
from tests.encoder_checkpoint import WORDS, write_encoder

SPLIT = Split(4, 32, 27)
F32 = Recipe.preset("f32")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """Its weights and those of every expert disturbed, so that no bias and no gain is what it begins as."""
    source = write_encoder(tmp_path / "bert", layers=3)
    model = load_model(source, "encoder")
    scores = np.random.default_rng(0).standard_normal((3, 48))
    tables = routing_tables("hash", np.zeros(1, np.int64), len(WORDS), 4, 3, 0)
    split_student(model, "encoder", SPLIT, scores, tables)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    (tmp_path / "student").mkdir()
    config = json.loads((source / "config.json").read_text())
    write_student(model, "encoder", SPLIT, config, tmp_path / "student")
    return tmp_path / "student"


def write(student: Path, output: Path, recipe: Recipe = F32, **options: Any) -> Path:
    with Checkpoint.open(student) as checkpoint:
        write_bert(checkpoint, recipe, output, **options)
        assert checkpoint.unread() == []
    return output


def run(folder: Path, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], feed)[0])


def feed_of(ids: NDArray[np.int64], lengths: list[int]) -> dict[str, NDArray[np.int64]]:
    mask = (np.arange(ids.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    types = np.broadcast_to(np.arange(ids.shape[1]) >= 4, ids.shape).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@torch.no_grad()
def oracle(student: Path, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    torch.set_num_threads(1)
    return np.asarray(
        load_student(student)(**{k: torch.from_numpy(v) for k, v in feed.items()}).logits.numpy()
    )


def test_float_equals_torch(student: Path, tmp_path: Path) -> None:
    """A batch with padding; single texts; one of a single word, where most experts have no token."""
    folder = write(student, tmp_path / "onnx")
    ids = np.random.default_rng(0).integers(0, len(WORDS), (4, 11))
    for feed in (
        feed_of(ids, [11, 7, 3, 1]),
        feed_of(ids[:1], [11]),
        feed_of(ids[:1, :1], [1]),
        feed_of(np.full((2, 6), 5), [6, 6]),
    ):
        # Float32 logits of order 1, summed in other orders.
        np.testing.assert_allclose(run(folder, feed), oracle(student, feed), rtol=0, atol=1e-4)
    assert np.ptp(run(folder, feed_of(ids, [11] * 4))) > 0.1


def test_each_token_has_one_expert_computed(student: Path, tmp_path: Path) -> None:
    """Another expert's weights may be no numbers."""
    folder = write(student, tmp_path / "onnx")
    with Checkpoint.open(student) as checkpoint:
        tables = [checkpoint.read(f"bert.encoder.layer.{i}.output.table") for i in range(3)]
    token = 4
    feed = feed_of(np.full((1, 6), token), [6])
    before = run(folder, feed)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    changed = 0
    for tensor in model.graph.initializer:
        parts = tensor.name.split(".")
        if tensor.name.endswith((".up", ".down")) and int(parts[3]) != tables[int(parts[1])][token]:
            where = {entry.key: entry.value for entry in tensor.external_data}
            with (folder / where["location"]).open("r+b") as file:
                file.seek(int(where["offset"]))
                file.write(np.full(int(where["length"]) // 4, np.nan, np.float32).tobytes())
            changed += 1
    assert changed == 3 * 3 * 2
    np.testing.assert_array_equal(run(folder, feed), before)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_blocks_equal_the_reference_on_their_values(precision: Any, student: Path, tmp_path: Path) -> None:
    """Through the codec that ships, activations in float32."""
    recipe = Recipe.preset(precision)
    folder = write(student, tmp_path / "onnx", recipe, accuracy_level=0)
    feed = feed_of(np.random.default_rng(1).integers(0, len(WORDS), (3, 9)), [9, 5, 2])
    with Checkpoint.open(student) as checkpoint:
        expected = bert_logits(
            checkpoint,
            describe_bert(checkpoint),
            *feed.values(),
            transform=lambda weight, at, rows: Recipe.decode(recipe.encode(weight, rows, start=at)),
        )
    np.testing.assert_allclose(run(folder, feed), expected, rtol=0, atol=1e-4)
    assert np.abs(expected - oracle(student, feed)).max() > (1e-4 if precision == "int8" else 1e-2)


def test_the_reference_equals_torch(student: Path) -> None:
    feed = feed_of(np.random.default_rng(2).integers(0, len(WORDS), (4, 11)), [11, 7, 3, 1])
    with Checkpoint.open(student) as checkpoint:
        found = bert_logits(checkpoint, describe_bert(checkpoint), *feed.values())
    np.testing.assert_allclose(found, oracle(student, feed), rtol=0, atol=1e-4)


def test_one_expert_of_all_neurons_is_the_dense_model(tmp_path: Path) -> None:
    """Without a gather: what a split model is measured against."""
    source, split = write_encoder(tmp_path / "bert", layers=2), Split(1, 48, 48)
    dense = load_model(source, "encoder").eval()
    student = load_model(source, "encoder")
    split_student(student, "encoder", split, np.zeros((2, 48)), np.zeros((2, len(WORDS)), np.int64))
    (tmp_path / "student").mkdir()
    config = json.loads((source / "config.json").read_text())
    write_student(student, "encoder", split, config, tmp_path / "student")
    with Checkpoint.open(tmp_path / "student") as checkpoint:
        write_bert(checkpoint, F32, tmp_path / "onnx")
    feed = feed_of(np.random.default_rng(0).integers(0, len(WORDS), (4, 11)), [11, 7, 3, 1])
    with torch.no_grad():
        expected = dense(**{k: torch.from_numpy(v) for k, v in feed.items()}).logits.numpy()
    np.testing.assert_allclose(run(tmp_path / "onnx", feed), expected, rtol=0, atol=1e-5)
    kinds = {
        node.op_type
        for node in onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False).graph.node
    }
    assert not kinds & {"NonZero", "ScatterND"}


def test_onnxruntime_s_quantizer_takes_it(student: Path, tmp_path: Path) -> None:
    """Every product of the float graph as int8, also of experts without a token."""
    folder = write(student, tmp_path / "onnx")
    (tmp_path / "int8").mkdir()
    quantize_dynamic(
        folder / "model.onnx",
        tmp_path / "int8" / "model.onnx",
        per_channel=True,
        weight_type=QuantType.QUInt8,
    )
    ids = np.random.default_rng(0).integers(0, len(WORDS), (4, 11))
    for feed in (feed_of(ids, [11, 7, 3, 1]), feed_of(ids[:1, :1], [1])):
        found, expected = run(tmp_path / "int8", feed), oracle(student, feed)
        # 8 bits of weights and activations through three layers, on logits of order 1.
        assert np.abs(found - expected).max() < 0.1
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node]
    assert "Gemm" not in kinds
    assert kinds.count("MatMulInteger") == 3 * (4 + 4 * 2) + 2
