"""The DirectML target: models without a right form there, graphs without kernels, and a run that fails."""

from __future__ import annotations

from unittest import mock

import onnx

from converters.onnx import dml
from converters.onnx.dml.kernels import check_kernels
from edge.runtimes import open_runtime
from quant.recipe import Recipe
from tests.messages import World, case
from tests.messages.artifacts import INT4, _with, decoder
from tests.messages.inspection import bundle


@case
def models_without_a_right_form(world: World) -> None:
    world.edge("convert", world.tiny("phi4"), "--target", "windows", "--precision", "f32", "-o", "b")
    world.edge("convert", world.tiny("uneven"), "--target", "windows", "--precision", "int8", "-o", "b")
    world.call(dml.check, decoder(world), Recipe.preset("f32"))
    world.call(dml.check, _with(_with(decoder(world), head_dim=20), dim=20), Recipe.preset("f16"))


@case
def context_that_is_capped(world: World) -> None:
    world.edge("convert", world.tiny("phi3-mini-4k"), "--target", "windows", "--dry-run")
    world.edge("convert", world.tiny("phi4-mini"), "--target", "windows", "--context", "9999", "--dry-run")


@case
def context_beyond_what_is_right(world: World) -> None:
    for shape in ("phi4", "phi3-mini-4k", "phi4-mini"):
        model = decoder(world, shape)
        place = world.path / shape
        options = {"context_length": 10**6, "checkpoint_directory": place}
        world.call(dml.open_writer, model, INT4, world.path / "x", **options)


@case
def graph_without_a_kernel(world: World) -> None:
    world.quietly(
        "convert", world.tiny("phi4-mini"), "--target", "cpu", "-o", "b", "--no-proof", "--threads", "1"
    )
    world.call(check_kernels, onnx.load(world.path / "b/onnx-int4/model.onnx", load_external_data=False))


@case
def engine_that_fails(world: World) -> None:
    runtime = open_runtime(bundle(world, "windows") / "dml-int4")
    try:
        with mock.patch.object(runtime, "_fresh", side_effect=RuntimeError("887A0005 device removed")):
            world.call(runtime.append, [1])
    finally:
        runtime.close()
