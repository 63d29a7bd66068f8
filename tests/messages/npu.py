"""`--target android-npu`: SoCs, contexts, the plugin, context binaries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import onnx
from onnx import TensorProto, helper

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx import npu as npu_room
from edge.npu import binary, contexts, plugin
from edge.npu.compiler import compile_graph
from edge.npu.socs import Soc, get_socs
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.runtimes.qnn import QnnRuntime
from quant.recipe import Recipe
from tests.converters.npu_support import write_npu
from tests.messages import World, case

NPU = ("--target", "android-npu")


def soc() -> Soc:
    return get_socs(["SM8650"])[0]


def pipeline(world: World) -> Path:
    """./npu, of a tiny model."""
    write_npu(world.path / world.tiny("phi4"), world.path / "npu")
    return world.path / "npu"


@case
def unknown_soc(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), *NPU, "--soc", "SM8560", "--dry-run")
    world.edge("convert", world.tiny("phi4"), *NPU, "--soc", "SM8650,tensor", "--dry-run")


@case
def soc_without_an_npu_target(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "--target", "cpu", "--soc", "SM8650", "--dry-run")


@case
def what_an_npu_bundle_will_be(world: World) -> None:
    world.edge("convert", world.tiny("phi4-mini"), *NPU, "--soc", "sm8650", "--dry-run")


@case
def context_that_the_memory_cannot_hold(world: World) -> None:
    wide = world.tiny("phi4", num_hidden_layers=64, num_key_value_heads=4, head_dim=256)
    world.edge("convert", wide, *NPU, "--context", "16000", "--dry-run")
    world.edge("convert", wide, *NPU, "--context", "1984", "--dry-run")


@case
def weights_that_no_session_holds(world: World) -> None:
    with mock.patch("edge.npu.variants.session_bytes", return_value=9 << 30):
        world.edge("convert", world.tiny("phi4"), *NPU, "--dry-run")


@case
def storage_without_an_npu_form(world: World) -> None:
    world.edge("convert", world.tiny("odd-heads"), *NPU, "--dry-run")
    recipe = world.path / "bf16.json"
    recipe.write_text(json.dumps(Recipe.preset("bf16").to_data()))
    with Checkpoint.open(world.path / world.tiny("phi4")) as checkpoint:
        decoder = describe(checkpoint)
    world.call(npu_room.check, decoder, Recipe.load(recipe))


@case
def context_of_the_writer(world: World) -> None:
    checkpoint = world.path / world.tiny("phi4")
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
    options: dict[str, Any] = {"checkpoint_directory": checkpoint, "context_length": 10**6}
    world.call(npu_room.open_writer, decoder, Recipe.preset("int4"), world.path / "x", **options)


@case
def context_shorter_than_two_windows(world: World) -> None:
    short = {"max_position_embeddings": 100, "original_max_position_embeddings": 100}
    world.edge("convert", world.tiny("phi4", **short), *NPU, "--dry-run")


@case
def plugin_that_is_missing_or_another(world: World) -> None:
    with mock.patch("edge.npu.plugin.version", side_effect=PackageNotFoundError):
        world.call(plugin.require)
    with mock.patch("edge.npu.plugin.version", return_value="2.1.0"):
        world.call(plugin.require)


@case
def plugin_that_does_not_load(world: World) -> None:
    with mock.patch("onnxruntime_qnn.get_library_path", return_value="/nowhere/libqnn.so"):
        world.call(plugin.register, "onnxruntime")
    world.call(plugin.device, SimpleNamespace(get_ep_devices=list))


@case
def graph_that_the_compiler_refuses(world: World) -> None:
    (world.path / "broken.onnx").write_bytes(b"no graph")
    world.call(compile_graph, world.path / "broken.onnx", soc(), None)
    with mock.patch("sys.executable", "/bin/false"):
        world.call(compile_graph, world.path / "broken.onnx", soc(), world.path / "out.onnx")


@case
def nodes_that_the_npu_does_not_take(world: World) -> None:
    folder = pipeline(world)
    names = ["x", *(f"y{i}" for i in range(6))]
    nodes = [
        helper.make_node(
            "SkipSimplifiedLayerNormalization", [a, a, "gain"], [b], name=b, domain="com.microsoft"
        )
        for a, b in pairwise(names)
    ]
    value = helper.make_tensor_value_info
    gain = helper.make_tensor("gain", TensorProto.FLOAT16, [32], [1.0] * 32)
    ends = [value(name, TensorProto.FLOAT16, [1, 4, 32]) for name in ("x", names[-1])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [gain])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "context.onnx")
    world.call(contexts.make_contexts, folder, world.path / "out", soc(), Silent(), allow_cpu=False)


@case
def damaged_context_binaries(world: World) -> None:
    folder, made = pipeline(world), world.path / "made"
    contexts.make_contexts(folder, made, soc(), Silent(), allow_cpu=False)
    (other,) = get_socs(["SM8550"])
    contexts.make_contexts(folder, world.path / "other", other, Silent(), allow_cpu=False)

    def damaged(what: str, change: Callable[[Path], object]) -> None:
        copy = Path(shutil.copytree(made, world.path / "copy"))
        change(copy)
        world.heading(what)
        world.call(open_runtime, copy)
        shutil.rmtree(copy)

    def flip(copy: Path) -> None:
        data = bytearray((copy / "context_qnn.bin").read_bytes())
        data[-100] ^= 1
        (copy / "context_qnn.bin").write_bytes(data)

    def swap(copy: Path) -> None:
        for name in ("iterator.onnx", "iterator_qnn.bin"):
            shutil.copyfile(world.path / "other" / name, copy / name)

    def unlist(copy: Path) -> None:
        record = json.loads((copy / binary.RECORD).read_text())
        record["files"] = {}
        (copy / binary.RECORD).write_text(json.dumps(record))

    damaged("a flipped byte", flip)
    damaged("a binary for another SoC", swap)
    damaged("no record", lambda copy: (copy / binary.RECORD).unlink())
    damaged("a record that does not name it", unlist)
    damaged("no binary", lambda copy: (copy / "context_qnn.bin").unlink())
    damaged("no graph", lambda copy: (copy / "context.onnx").unlink())
    damaged(
        "a graph without a binary",
        lambda copy: shutil.copyfile(folder / "context.onnx", copy / "context.onnx"),
    )
    damaged("a binary that is none", lambda copy: (copy / "context_qnn.bin").write_bytes(b"nothing"))
    world.call(binary.read_binary, world.path / "nowhere.bin")


@case
def running_a_pipeline(world: World) -> None:
    folder = pipeline(world)
    world.call(open_runtime, folder, context_length=41)
    runtime = open_runtime(folder)
    world.call(runtime.append, [5] * 41)
    with mock.patch.object(QnnRuntime, "_window", side_effect=RuntimeError("the device is gone\nat line 7")):
        world.call(runtime.append, [5] * 3)
    runtime.close()
    config = json.loads((folder / "genai_config.json").read_text())
    (folder / "iterator.onnx").write_bytes(b"")
    world.call(open_runtime, folder)
    del config["model"]["decoder"]["sliding_window"]
    (folder / "genai_config.json").write_text(json.dumps(config))
    world.call(open_runtime, folder)
