"""Adapters: what PEFT saved, in both runtimes, is what PEFT merges into the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, LoraPair, Rows, Weight
from converters.lora import changed, rank, read_stack
from converters.models import describe
from converters.peft import attach
from converters.reference import logits
from converters.rooms import ADAPTER_ROOMS, ROOMS
from edge import streaming
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.runtimes.protocol import Adaptable
from quant.recipe import Precision, Recipe
from tests.adapters import merged_logits, write_adapter

Tiny = Callable[..., Path]
CONTEXT = 64
IDS = [int(i) for i in np.random.default_rng(0).integers(3, 250, 40)]
SHAPES: dict[str, dict[str, Any]] = {
    "every": {"r": 8, "lora_alpha": 16},
    "qkv": {"r": 5, "targets": ["qkv_proj"], "use_rslora": True, "rank_pattern": {"layers.1.self_attn.qkv_proj": 3}},
    "down": {"r": 1, "targets": ["o_proj", "down_proj"], "alpha_pattern": {"o_proj": 7, "layers.0.mlp.down_proj": 2}},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny: Tiny) -> Path:
    return tiny("phi4-mini")


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: write_adapter(base, root / name, seed=i, **options)
        for i, (name, options) in enumerate(SHAPES.items())
    }


def with_all(checkpoint: Checkpoint, adapters: dict[str, Path]) -> Decoder:
    decoder = describe(checkpoint)
    for name, directory in adapters.items():
        decoder = attach(checkpoint, decoder, directory, name)
    return decoder


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def artifact(
    request: pytest.FixtureRequest,
    base: Path,
    adapters: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Float32 weights with all adapters."""
    return write(request.param, base, adapters, tmp_path_factory.mktemp(request.param), "f32")


def write(room: str, base: Path, adapters: dict[str, Path], directory: Path, precision: Precision) -> Path:
    path = directory / ("model" if room == "onnx" else "model.gguf")
    recipe = Recipe.preset(precision)
    with Checkpoint.open(base) as checkpoint:
        decoder = with_all(checkpoint, adapters)
        if adapters:
            ADAPTER_ROOMS[room].write_adapters(checkpoint, decoder, recipe, path)
        writer = ROOMS[room].open_writer(
            decoder, recipe, path, context_length=CONTEXT, checkpoint_directory=base, model_name="m"
        )
        stream = [streaming.Stream(recipe, [writer])]
        streaming.run(checkpoint, list(decoder.weights()), stream, threads=1, progress=Silent())
        writer.close()
        if adapters:
            assert not ADAPTER_ROOMS[room].adapter_faults(checkpoint, decoder, recipe, path)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_the_reference_computes_what_peft_merges(base: Path, adapters: dict[str, Path], name: str) -> None:
    with Checkpoint.open(base) as checkpoint:
        decoder = with_all(checkpoint, adapters)
        lora = next(lora for lora in decoder.adapters if lora.name == name)
        found = logits(checkpoint, decoder, IDS, adapter=lora)
    expected = merged_logits(base, adapters[name], IDS)
    # Two products instead of one merged weight: float32 rounding of 192 terms.
    np.testing.assert_allclose(found, expected, atol=5e-5, rtol=0)
    assert np.abs(found - merged_logits(base, None, IDS)).max() > 0.1


def test_runtimes_switch_and_agree_with_merged_weights(
    base: Path, adapters: dict[str, Path], artifact: Path
) -> None:
    """In any order, and back to none; a switch leaves nothing of the other adapter in the cache."""
    runtime = open_runtime(artifact, context_length=CONTEXT, exact=True)
    assert isinstance(runtime, Adaptable)
    assert runtime.adapters == tuple(sorted(SHAPES))
    try:
        for name in ("every", None, "qkv", "down", "every"):
            runtime.use_adapter(name)
            assert runtime.position == 0
            expected = merged_logits(base, adapters[name] if name else None, IDS)
            prompt = runtime.append(IDS[:-1])
            # As the reference's tolerance, and the engine's own order of sums on top.
            np.testing.assert_allclose(prompt, expected[-2], atol=1e-4, rtol=0)
            np.testing.assert_allclose(runtime.append(IDS[-1:]), expected[-1], atol=1e-4, rtol=0)
            np.testing.assert_allclose(runtime.teacher_forced(IDS), expected, atol=1e-4, rtol=0)
    finally:
        runtime.close()


def test_a_graph_that_takes_adapters_says_the_same_without_one(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Defaults of rank 0 add zeros: equal to the last bit, so an adapter costs a person who has none nothing."""
    said = []
    for given in (adapters, {}):
        path = write("onnx", base, given, tmp_path / str(len(given)), "int4")
        runtime = open_runtime(path, context_length=CONTEXT, threads=1)
        said.append(runtime.teacher_forced(IDS))
        runtime.close()
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("room", ["onnx", "gguf"])
def test_an_adapter_beside_quantized_weights(
    base: Path, adapters: dict[str, Path], tmp_path: Path, room: str
) -> None:
    """The runtime against the reference on the stored weights: what is left are int8 activations, as without one."""
    path = write(room, base, adapters, tmp_path, "int8")
    recipe = Recipe.preset("int8")
    runtime = open_runtime(path, context_length=CONTEXT, exact=True)
    assert isinstance(runtime, Adaptable)
    with Checkpoint.open(base) as checkpoint:
        decoder = with_all(checkpoint, adapters)

        def stored(weight: Weight, start: int, raw: Any) -> Any:
            return recipe.decode(recipe.encode(weight, raw, start=start))

        errors = {}
        for lora in (None, *decoder.adapters):
            runtime.use_adapter(lora.name if lora else None)
            expected = logits(checkpoint, decoder, IDS, transform=stored, adapter=lora)
            errors[lora] = float(np.abs(runtime.teacher_forced(IDS) - expected).mean())
    runtime.close()
    without = errors.pop(None)
    assert all(error < 1.5 * without for error in errors.values()), (without, errors)


def test_two_writings_give_the_same_bytes(base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    for room in ("onnx", "gguf"):
        files = []
        for run in "12":
            write(room, base, adapters, tmp_path / run, "int4")
            files.append(
                {
                    p.relative_to(tmp_path / run): p.read_bytes()
                    for p in (tmp_path / run).rglob("*")
                    if p.is_file()
                }
            )
        assert files[0] == files[1]
        assert len([name for name in files[0] if "adapters" in str(name)]) >= len(SHAPES)


def test_layers_that_were_adapted_apart_are_one_update_of_their_stack(base: Path, tmp_path: Path) -> None:
    """A checkpoint whose q and v have adapters of their own (PhiMoE's layout): a stack's update is block-diagonal."""
    adapter = write_adapter(base, tmp_path / "a", ["o_proj"], r=3)
    with Checkpoint.open(base) as checkpoint:
        decoder = attach(checkpoint, describe(checkpoint), adapter, "a")
        (lora,) = decoder.adapters
        first = lora.pairs[0]
        layer = decoder.layers[0]
        width = first.a.shape[1]
        # Two of the adapter's tensors, taken as if they belonged to q and to v.
        pairs = [
            LoraPair(weight.name, Weight(f"a{i}", (3, width), (Rows(first.a.parts[0].tensor, 0, 3),)),
                     Weight(f"b{i}", (weight.rows, 3), (Rows(first.b.parts[0].tensor, 0, weight.rows),)), 0.5)
            for i, weight in enumerate((layer.q, layer.v))
        ]  # fmt: skip
        apart = type(lora)("apart", tuple(pairs))
        stack = next(s for s in changed(type(decoder)(**{**vars(decoder), "adapters": (apart,)})))
        a, b = read_stack(checkpoint, apart, stack)
        assert rank(apart, stack) == 6
        update = b @ a
        start = 0
        for weight in stack.weights:
            pair = next((p for p in pairs if p.weight == weight.name), None)
            rows = update[start : start + weight.rows]
            if pair is None:
                assert not rows.any()
            else:
                halves = [checkpoint.weight_rows(w, 0, w.rows) for w in (pair.b, pair.a)]
                np.testing.assert_array_equal(rows, np.float32(0.5) * halves[0] @ halves[1])
            start += weight.rows
