"""Recipes made to a budget: what they hold, that they meet it, and that nothing of their size costs less."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters import gguf, onnx
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe
from edge import cli, mixed, mixed_costs, mixed_sizes
from edge.progress import Silent
from quant.recipe import Recipe, Rule

Tiny = Callable[..., Path]
BOTH, PHONE = ("onnx", "gguf"), ("gguf",)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "mixed-cache"))


@pytest.fixture
def opened(tiny: Tiny) -> Iterator[tuple[Checkpoint, Decoder]]:
    with Checkpoint.open(tiny("phi4-mini")) as checkpoint:
        yield checkpoint, describe(checkpoint)


def windows() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 640, (4, 32))


def choose(opened: tuple[Checkpoint, Decoder], bits: float, formats: tuple[str, ...] = PHONE) -> mixed.Mixed:
    budget = mixed.Budget(bits_per_weight=bits)
    return mixed.choose_recipe(*opened, windows(), budget, formats, (), Silent())


@pytest.mark.parametrize("bits", [4.5, 4.8, 5.5, 7.0, 8.5])
@pytest.mark.parametrize("formats", [BOTH, PHONE])
def test_a_recipe_keeps_to_its_bits_and_to_what_the_formats_hold(
    opened: tuple[Checkpoint, Decoder], bits: float, formats: tuple[str, ...]
) -> None:
    decoder = opened[1]
    found = choose(opened, bits, formats)
    assert found.bits_per_weight == mixed_sizes.bits_per_weight(decoder, found.recipe) <= bits + 1e-9
    assert found.best <= found.kl
    gguf.check(decoder, found.recipe)
    if "onnx" in formats:
        onnx.check(decoder, found.recipe)
    for layer in decoder.layers:
        assert len({found.recipe.storage(w) for w in (layer.q, layer.k, layer.v)}) == 1
    if bits == 4.5:
        assert found.recipe.rules == (Rule("*", "int4", "rtn"),)
    if bits == 8.5:
        assert found.recipe.rules == (Rule("*", "int8", "rtn"),)


def test_more_bits_cost_less_and_uniform_recipes_of_the_size_cost_more(
    opened: tuple[Checkpoint, Decoder],
) -> None:
    checkpoint, decoder = opened
    costs = mixed_costs.measured_costs(checkpoint, decoder, windows(), Silent())
    spent = [choose(opened, bits).kl for bits in (4.5, 4.8, 5.2, 6.0, 8.0)]
    assert spent == sorted(spent, reverse=True)
    for recipe in (
        Recipe.preset("int4"),
        *(Recipe(s, (Rule("*", s, "rtn"),)) for s in ("int4_asym", "int5")),
    ):
        plain = sum(costs[w.name][recipe.storage(w)] for w in decoder.weights() if w.name in costs)
        assert choose(opened, mixed_sizes.bits_per_weight(decoder, recipe)).kl <= plain


def test_each_pattern_matches_its_own_weights_alone(opened: tuple[Checkpoint, Decoder]) -> None:
    decoder = opened[1]
    names = [w.name for w in decoder.weights()]
    groups = mixed_sizes.fused(decoder)
    for group in groups:
        matched = [n for n in names if fnmatchcase(n, group.pattern)]
        assert matched == [w.name for w in group.weights]
    assert [w.name for g in groups for w in g.weights] == [w.name for w in decoder.weights() if w.is_matrix]


def test_costs_are_measured_once(opened: tuple[Checkpoint, Decoder], monkeypatch: pytest.MonkeyPatch) -> None:
    before = choose(opened, 5.0)
    monkeypatch.setattr(mixed_costs, "measure", None)
    assert choose(opened, 5.0) == before


def test_a_size_is_met_by_every_file_and_the_manifests_recipe_makes_the_same_ones(
    tiny: Tiny, tmp_path: Path
) -> None:
    model = str(tiny("phi4-mini"))
    targets = ["-t", "cpu", "-t", "android", "--context", "256", "--no-proof"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["convert", model, *targets, "--size-mb", "1.65", "-o", str(first)]) == 0
    manifest = json.loads((first / "manifest.json").read_text())
    recipes = [variant["recipe"] for variant in manifest["variants"]]
    assert recipes[0] == recipes[1]
    assert len({rule["storage"] for rule in recipes[0]["rules"]}) > 1
    assert (first / "onnx-int4" / "model.onnx.data").stat().st_size <= 1.65e6
    # A GGUF's vocabulary is estimated from above.
    assert max(f.stat().st_size for f in first.glob("*.gguf")) <= 1.65e6
    (tmp_path / "recipe.json").write_text(json.dumps(recipes[0]))
    assert (
        cli.main(["convert", model, *targets, "--recipe", str(tmp_path / "recipe.json"), "-o", str(second)])
        == 0
    )
    assert json.loads((second / "manifest.json").read_text())["files"] == manifest["files"]


def test_memory_is_what_was_said(opened: tuple[Checkpoint, Decoder]) -> None:
    checkpoint, decoder = opened
    ids = np.random.default_rng(2).integers(0, 640, (mixed_costs.WINDOWS, 256))
    tracemalloc.start()
    mixed_costs.measured_costs(checkpoint, decoder, ids, Silent())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mixed_costs.measuring_memory(decoder, 256)


def test_a_width_that_no_block_fits_stays_float_and_counts(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("odd-heads")) as checkpoint:
        opened = checkpoint, describe(checkpoint)
        found = choose(opened, 5.5)
        assert found.recipe.storage(opened[1].layers[0].o) == "f16"
        assert found.bits_per_weight <= 5.5
