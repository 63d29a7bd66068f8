"""Encoders: exports that cannot be, bundles that give no labels, commands that want a model that writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.bundle import hash_files, write_json
from edge.encoder.exporters import EXPORTERS, Exported
from edge.encoder.session import open_graph
from tests.edge.local_server import add_wheel
from tests.edge.test_sources import _wheel
from tests.encoder_checkpoint import write_encoder
from tests.messages import World, case
from tests.messages.sources import served

VARIABLE = "EDGE_ENCODERS_PYTHON"


def encoder(world: World, name: str = "bert", **options: Any) -> str:
    write_encoder(world.path / name, **options)
    return name


def graph(folder: Path) -> None:
    """Logits that are the first two tokens."""
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Slice", ["input_ids", "start", "end", "axis"], ["first"]),
                helper.make_node("Cast", ["first"], ["logits"], to=TensorProto.FLOAT),
            ],
            "first",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
            [
                helper.make_tensor(n, TensorProto.INT64, [1], [v])
                for n, v in (("start", 0), ("end", 2), ("axis", 1))
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    onnx.save(model, str(folder / "model.onnx"))


def bundle(world: World, *, labels: bool = True, **more: Any) -> str:
    """What a conversion leaves, with a graph that needs no exporter; `more` stands in its manifest's model."""
    write_encoder(world.path / "bundle")
    folder = world.path / "bundle"
    for file in folder.iterdir():
        if file.name != "tokenizer.json":
            file.unlink()
    (folder / "f32").mkdir()
    graph(folder / "f32")
    model = {"model_type": "bert", "labels": ["no", "yes"] if labels else None, "pooling": None, "pad": 0}
    model |= more
    variant = {
        "name": "f32", "format": "encoder", "path": "f32", "targets": ["cpu"], "precision": "f32",
        "context_length": 32, "recipe": {},
    }  # fmt: skip
    manifest = {
        "format": 1, "name": "bert", "model": model, "source": {"pin": "file:bert", "licence": None, "files": {}},
        "variants": [variant], "proof": "unproven: --no-proof", "tools": {}, "files": hash_files(folder),
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    return "bundle"


@case
def environments_that_cannot_export(world: World) -> None:
    name, out = encoder(world), ("--target", "cpu", "-o", "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        patch.setitem(__import__("sys").modules, "optimum", None)
        world.edge("convert", name, *out)
        for text in (
            "echo optimum >&2; exit 3",
            "echo Traceback >&2; echo 'ValueError: no such op' >&2; exit 1",
        ):
            program = world.path / "python"
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
            patch.setenv(VARIABLE, "./python")
            world.edge("convert", name, *out)
        patch.setenv(VARIABLE, "./nowhere")
        world.edge("convert", name, *out)


@case
def plans(world: World) -> None:
    name = encoder(world)
    world.edge("convert", name, "--target", "cpu", "--dry-run")
    for options in (
        ("--target", "android"), ("--target", "cpu", "--precision", "int4"), ("--target", "cpu", "--context", "8"),
    ):  # fmt: skip
        world.edge("convert", name, *options)
    (world.path / name / "tokenizer.json").unlink()
    world.edge("convert", name, "--target", "cpu")


@case
def a_proof_that_fails(world: World) -> None:
    def other(checkpoint: Path, folder: Path, probes: Any) -> Exported:
        graph(folder)
        return Exported(np.full((len(probes["input_ids"]), 2), 0.5, np.float32), {})

    name = encoder(world)
    with mock.patch.dict(EXPORTERS, bert=other):
        world.edge("convert", name, "--target", "cpu", "--precision", "f32", "-o", "out")


@case
def labels(world: World) -> None:
    name = bundle(world)
    world.edge("classify", name, "it was good", "a dull film")
    world.edge("classify", name, "--json", stdin=b"good\n")
    world.edge("classify", name, "good", "--precision", "int8")
    world.edge("verify", name)
    for command in (
        ("chat", "hi", "-m", name),
        ("report", name),
        ("eval", name, "--tasks", "reading"),
        ("bench", name),
    ):
        world.edge(*command)
    (world.path / name / "f32" / "model.onnx").write_bytes(b"no graph")
    world.call(open_graph, Path(name) / "f32")


@case
def bundles_without_labels(world: World) -> None:
    world.edge("classify", bundle(world, labels=False), "good")
    world.quietly("convert", world.tiny("phi4-mini"), "--target", "cpu", "--no-proof", "-o", "decoder")
    world.edge("classify", "decoder", "good")


@case
def checkpoints_that_write_no_text(world: World) -> None:
    name = encoder(world)
    world.edge("inspect", name)
    (world.path / "text.txt").write_text("it was good")
    world.edge("heal", name, "--text", "text.txt", "-o", "out")
    world.edge("eval", name, "--tasks", "reading")


@case
def heads_that_cannot_be(world: World) -> None:
    name = encoder(world)
    config = world.path / name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["BertModel"]}))
    lines = world.path / "lines.jsonl"
    lines.write_text('{"text": "it was good", "label": "yes"}\n')
    options = ("distill", name, "--text", "lines.jsonl", "--layers", "2", "--steps", "1", "-o", "out")
    world.edge(*options)
    world.edge(*options, "--method", "ft")


@case
def folders_of_a_wheel(world: World) -> None:
    files = {"tiny/model/config.json": b"{}", "tiny/weights/model.safetensors": b"weights"}
    with served(world) as site:
        add_wheel(site, "tiny-encoder", "tiny_encoder-1.0-py3-none-any.whl", _wheel(files))
        world.edge("lock", "tiny", "pypi:tiny-encoder==1.0!tiny/model/")
        world.quietly("lock", "tiny", "pypi:tiny-encoder==1.0!tiny/weights/")
        world.edge("pull", "tiny")
