"""Models that a format cannot hold, and variants whose content is not what was written."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest

import edge.chat.templates as templates
from converters import gguf
from converters import onnx as onnx_room
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.gguf import strip
from converters.models import describe
from converters.onnx.stored import StoredOnnx
from converters.rooms import ROOMS
from edge.chat.templates import ChatTemplate
from edge.proof import proof_tokens
from edge.runtimes import open_runtime
from edge.runtimes.isolated import teacher_forced
from quant.recipe import Recipe
from tests.converters.npu_support import write_npu
from tests.messages import World, case
from tests.messages.inspection import bundle
from tests.messages.tokenizers import _refused

INT4 = Recipe.preset("int4")


def decoder(world: World, name: str = "phi4") -> Decoder:
    with Checkpoint.open(world.path / world.tiny(name)) as checkpoint:
        return describe(checkpoint)


def _with(model: Decoder, **changes: Any) -> Decoder:
    """A decoder with one field of its attention or rope changed."""
    ((key, value),) = changes.items()
    place = "attention" if hasattr(model.attention, key) else "rope"
    return dataclasses.replace(model, **{place: dataclasses.replace(getattr(model, place), **{key: value})})


@case
def models_that_llama_cpp_cannot_run(world: World) -> None:
    sound = decoder(world)
    for model in (
        _with(sound, head_dim=sound.attention.head_dim * 2), _with(sound, kv_heads=3), _with(sound, dim=7),
        _with(sound, scale=1.0), dataclasses.replace(sound, layers=sound.layers * 1000),
    ):  # fmt: skip
        world.call(gguf.check, model, INT4)
    world.call(gguf.open_writer, sound, INT4, world.path / "x.gguf", context_length=10**9,
               checkpoint_directory=world.path / "phi4", model_name="x")  # fmt: skip


@case
def models_that_no_onnx_graph_can_run(world: World) -> None:
    sound = decoder(world)
    world.call(onnx_room.check, _with(sound, kv_heads=3), INT4)
    world.call(onnx_room.check, _with(sound, dim=7), INT4)
    (world.path / "x").mkdir()
    world.call(onnx_room.open_writer, sound, INT4, world.path / "x", context_length=10**9,
               checkpoint_directory=world.path / "phi4")  # fmt: skip


@case
def recipe_that_splits_a_tensor(world: World) -> None:
    rules = [{"pattern": "layers.0.mlp.gate", "storage": "int8", "method": "rtn"},
             {"pattern": "*", "storage": "int4", "method": "rtn"}]  # fmt: skip
    (world.path / "recipe.json").write_text(json.dumps({"name": "mixed", "rules": rules}))
    world.edge("convert", world.tiny("phi4"), "--target", "android", "--dry-run", "--recipe", "recipe.json")


@case
def too_many_stop_tokens(world: World) -> None:
    directory = world.copy("phi4")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 2, 3, 4, 5]}))
    (directory / "generation_config.json").unlink(missing_ok=True)
    world.edge("convert", "checkpoint", "--target", "android", "-o", "b", "--no-proof")


@case
def tokens_that_no_merge_makes(world: World) -> None:
    def change(data: dict[str, Any]) -> None:
        stages = [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False},
        ]
        data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": stages}
        data["model"]["ignore_merges"] = True
        data["model"]["merges"].pop()

    _refused(world, "phi4", {"whole words": change})


@case
def a_tensor_that_is_left_unread(world: World) -> None:
    with mock.patch.object(Checkpoint, "unread", return_value=["model.extra.weight"]):
        world.edge("convert", world.tiny("phi4"), "--target", "cpu", "-o", "b", "--threads", "1")


def _reader(world: World, change: Any = None) -> StoredOnnx:
    """A reader of ./b/onnx-int4 after a change of its graph."""
    folder = world.path / "b" / "onnx-int4"
    if change is not None:
        graph = onnx.load(folder / "model.onnx", load_external_data=False)
        change(graph.graph)
        (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return StoredOnnx(folder, decoder(world), INT4)


@case
def graphs_that_were_changed(world: World) -> None:
    folder = bundle(world, "cpu") / "onnx-int4"
    sound = (folder / "model.onnx").read_bytes()
    model = decoder(world)

    def first(graph: onnx.GraphProto) -> Any:
        return next(t for t in graph.initializer if t.external_data)

    def entry(graph: onnx.GraphProto, key: str) -> Any:
        return next(e for e in first(graph).external_data if e.key == key)

    def without_weights(graph: onnx.GraphProto) -> None:
        del graph.initializer[:]

    def shortened(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            for e in tensor.external_data:
                if e.key == "length":
                    e.value = "3"

    world.call(_reader, world, lambda g: setattr(entry(g, "location"), "value", "elsewhere.data"))
    (folder / "model.onnx").write_bytes(sound)
    world.call(_reader, world, lambda g: setattr(entry(g, "offset"), "value", "-1"))
    (folder / "model.onnx").write_bytes(sound)
    with _reader(world, shortened) as reader:
        world.call(reader.stored_rows, model.final_norm, 0, 1)
    with _reader(world, without_weights) as reader:
        world.call(reader.stored_rows, model.final_norm, 0, 1)
        world.call(reader.rotary_tables)
    (folder / "model.onnx").write_bytes(sound)
    data = folder / "model.onnx.data"
    os.truncate(data, 10)
    with _reader(world) as reader:
        world.call(reader.stored_rows, model.final_norm, 0, 1)
    data.unlink()
    world.call(_reader, world)
    (folder / "model.onnx").unlink()
    world.call(_reader, world)


@case
def gguf_of_another_model(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    model = decoder(world)
    wide = dataclasses.replace(model.final_norm, shape=(model.hidden_size * 2,))
    stored = gguf.open_stored(file, dataclasses.replace(model, final_norm=wide), INT4)
    try:
        world.call(stored.rows, wide, 0, 1)
    finally:
        stored.close()


@case
def engine_that_dies(world: World) -> None:
    with mock.patch.object(sys, "executable", "/bin/false"):
        world.call(teacher_forced, Path("b"), [1], world.path, context_length=8)


@case
def engine_that_the_system_ends(world: World) -> None:
    """Killed, or out of disk: the machine's fault, and no failed proof."""
    killed = world.path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with mock.patch.object(sys, "executable", str(killed)):
        world.call(teacher_forced, Path("b"), [1], world.path, context_length=8)
    full = world.path / "full"
    full.write_text('#!/bin/sh\necho \'{"machine": "[Errno 28] No space left on device"}\'\n')
    full.chmod(0o755)
    with mock.patch.object(sys, "executable", str(full)):
        world.call(teacher_forced, Path("b"), [1], world.path, context_length=8)
    with mock.patch("edge.proof.proof_tokens", side_effect=OSError(28, "No space left on device")):
        world.edge("convert", world.tiny("phi4"), "--target", "cpu", "-o", "c", "--threads", "1")


@case
def proof_text_that_the_embedding_cannot_hold(world: World) -> None:
    directory = world.path / world.tiny("phi4")
    small = dataclasses.replace(decoder(world), vocab_size=8)
    world.call(proof_tokens, directory, small, 256)
    world.call(proof_tokens, world.path, small, 256)


@case
def genai_config_that_cannot_be_read(world: World) -> None:
    folder = bundle(world, "cpu") / "onnx-int4"
    (folder / "genai_config.json").write_text("{")
    stored = ROOMS["onnx"].open_stored(folder, decoder(world), INT4)
    try:
        world.call(lambda: list(stored.facts(4096)))
    finally:
        stored.close()


@case
def gguf_without_a_rotary_base(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    stored = gguf.open_stored(file, decoder(world), INT4)
    known = {key: value for key, value in stored._file.metadata.items() if key != "phi3.rope.freq_base"}
    try:
        with mock.patch.object(stored._file, "metadata", known):
            world.call(stored.rope_table, 16, np.arange(4))
    finally:
        stored.close()


@case
def llama_cpp_that_fails(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    with mock.patch.object(strip, "from_text", side_effect=ValueError("key 'edge.strip' is no JSON")):
        world.call(open_runtime, file)
    with mock.patch("llama_cpp.llama_init_from_model", return_value=None):
        runtime = open_runtime(file, context_length=256)
        world.call(runtime.append, [1])
    runtime = open_runtime(file, context_length=256)
    try:
        with mock.patch("llama_cpp.llama_decode", return_value=-3):
            world.call(runtime.append, [1])
        with mock.patch("llama_cpp.llama_tokenize", return_value=-1):
            world.call(runtime.encode, "hello", special=False)
    finally:
        runtime.close()


@case
def switch_that_llama_cpp_cannot_follow(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    known = {"general.architecture": "phi3", "phi3.rope.scaling.original_context_length": "100"}
    patched = "edge.runtimes.gguf_vocabulary.GgufVocabulary.metadata"
    with mock.patch(patched, lambda self, key: known.get(key)):
        world.call(open_runtime, file)


@case
def genai_that_fails(world: World) -> None:
    runtime = open_runtime(bundle(world, "cpu") / "onnx-int4")
    try:
        with mock.patch.object(runtime, "_generator") as generator:
            generator.append_tokens.side_effect = RuntimeError("Non-zero status code returned")
            world.call(runtime.append, [1])
    finally:
        runtime.close()


@case
def folder_with_a_broken_tokenizer(world: World) -> None:
    folder = bundle(world, "cpu") / "onnx-int4"
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(data | {"model": {"type": "none"}}))
    from edge.runtimes.tokenizer import FolderTokenizer

    world.call(FolderTokenizer, folder)


@case
def graphs_whose_switch_is_not_clear(world: World) -> None:
    from edge.runtimes.longrope import switch_length

    def save(*limits: int) -> Path:
        nodes = [onnx.helper.make_node("Greater", ["n", f"limit{i}"], [f"c{i}"]) for i in range(len(limits))]
        constants = [onnx.numpy_helper.from_array(np.array(v), f"limit{i}") for i, v in enumerate(limits)]
        value = onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [])
        graph = onnx.helper.make_graph(nodes, "g", [value], [], constants)
        onnx.save(onnx.helper.make_model(graph), world.path / "x.onnx")
        return world.path / "x.onnx"

    world.call(switch_length, save(4096, 8192))
    (world.path / "x.onnx").write_bytes(b"\xff\xff")
    world.call(switch_length, world.path / "x.onnx")


@case
def template_that_eats_memory(world: World) -> None:
    with mock.patch.object(templates, "MAX_MEMORY", 1 << 20):
        # More than any process has lying around freed, which a limit on what is new would not stop.
        source = "{{ 'x' * 100000000000 }}"
        world.call(ChatTemplate(source).render, [{"role": "user", "content": "x" * 1000}])


@case
def disks_that_fail_while_they_are_read(world: World) -> None:
    (world.path / "c").mkdir()
    with mock.patch.object(Path, "iterdir", side_effect=PermissionError(13, "Permission denied")):
        world.call(Checkpoint.open, world.path / "c")
    with (
        Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(os, "preadv", mock.Mock(side_effect=OSError(5, "Input/output error")))
        world.call(checkpoint.read, "model.norm.weight")


@case
def graphs_that_name_one_tensor_in_two_places(world: World) -> None:
    folder = world.path / "npu"
    model = write_npu(world.path / world.tiny("phi4"), folder)
    graph = onnx.load(folder / "iterator.onnx", load_external_data=False)
    tensor = next(t for t in graph.graph.initializer if t.name == "layers.0.attention.qkv.codes")
    next(entry for entry in tensor.external_data if entry.key == "offset").value = "0"
    onnx.save(graph, folder / "iterator.onnx")
    world.call(ROOMS["npu"].open_stored, folder, model, INT4)
