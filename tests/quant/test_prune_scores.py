"""What PLATON is held against: sensitivity without its uncertainty, and magnitude. One switch, else the same code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from converters.checkpoint import Checkpoint
from edge.progress import Silent
from edge.prune import PruneRequest, prune
from quant.prune.importance import Importance, Smoothing
from quant.prune.settings import Score, Settings
from quant.prune.units import MATRICES

Tiny = Callable[..., Path]
SCORES = get_args(Score)
SHORT = Settings(keep=None, units={}, steps=8, length=32, batch=2, window=2, rate=0.0)


def observed(scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Scores after three windows of two steps, in which the weights stay and the gradients are `scale` times random."""
    w = nn.Parameter(torch.randn(6, 50, generator=torch.Generator().manual_seed(0)))
    each = {score: Importance({"w": w}, Smoothing(window=2), score) for score in SCORES}
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        w.grad = torch.randn(6, 50, generator=generator) * scale
        for importance in each.values():
            importance.observe()
    found = {score: importance.scores()["w"] for score, importance in each.items()}
    return found | {"U": each["platon"].state_dict()["uncertainty"]["w"], "|w|": w.detach().abs()}


def test_platon_is_sensitivity_times_its_uncertainty_and_magnitude_is_the_weights_own() -> None:
    found = observed()
    assert torch.equal(found["platon"], found["sensitivity"] * found["U"])
    assert torch.equal(found["magnitude"], found["|w|"])
    orders = [found[score].flatten().argsort().tolist() for score in SCORES]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_scaled_loss_scales_platon_by_its_square_sensitivity_by_itself_and_magnitude_not_at_all() -> None:
    one, other = observed(), observed(scale=4)
    for score, factor in {"platon": 16, "sensitivity": 4, "magnitude": 1}.items():
        assert torch.equal(other[score], one[score] * factor)


def test_where_all_are_equally_uncertain_platon_ranks_as_sensitivity() -> None:
    """beta1 = 0 makes every |I - Ibar| zero; a first window from zero makes U proportional to Ibar."""
    w = nn.Parameter(torch.randn(200, generator=torch.Generator().manual_seed(0)))
    both = [Importance({"w": w}, Smoothing(window=1), score) for score in ("platon", "sensitivity")]
    w.grad = torch.randn(200, generator=torch.Generator().manual_seed(1))
    for importance in both:
        importance.observe()
    platon, sensitivity = (importance.scores()["w"] for importance in both)
    assert torch.equal(platon.argsort(), sensitivity.argsort())


def test_magnitude_keeps_no_state_and_ends_its_windows_all_the_same() -> None:
    w = nn.Parameter(torch.ones(3))
    importance = Importance({"w": w}, Smoothing(window=2), "magnitude")
    assert [importance.observe() for _ in range(4)] == [False, True, False, True]
    assert importance.state_dict() == {"seen": 4, "sum": {}, "mean": {}, "uncertainty": {}}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "words.txt"
    file.write_text(" ".join(f"word{i % 97} and {i % 89}" for i in range(300)))
    return file


def matrices(directory: Path) -> dict[str, np.ndarray]:
    with Checkpoint.open(directory) as checkpoint:
        return {n: checkpoint.read(n).astype(np.float32) for n in checkpoint.tensors if n.endswith(MATRICES)}


@pytest.mark.parametrize("score", SCORES)
def test_every_score_leaves_as_many_weights(score: Score, tiny: Tiny, text: Path, tmp_path: Path) -> None:
    settings = replace(SHORT, keep=0.3, rate=1e-3, score=score)
    shrink = prune(PruneRequest(str(tiny("odd-heads")), tmp_path / "sparse", settings, text), Silent())
    each = matrices(tmp_path / "sparse").values()
    total = sum(w.size for w in each)
    assert sum(int((w != 0).sum()) for w in each) == round(0.3 * total)
    assert shrink["settings"]["score"] == score


def test_magnitude_of_weights_that_stand_still_is_one_cut_at_the_end(
    tiny: Tiny, text: Path, tmp_path: Path
) -> None:
    """At rate 0 the cubic schedule changes nothing: what is pruned early is what is smallest at the end."""
    source = tiny("phi4")
    settings = replace(SHORT, keep=0.4, score="magnitude")
    prune(PruneRequest(str(source), tmp_path / "sparse", settings, text), Silent())
    before, after = matrices(source), matrices(tmp_path / "sparse")
    sizes = np.concatenate([np.abs(w).ravel() for w in before.values()])
    kept = np.concatenate([after[name].ravel() != 0 for name in before])
    assert kept.sum() == round(0.4 * kept.size)
    assert sizes[kept].min() >= sizes[~kept].max()


def test_magnitude_of_units_is_the_mean_of_their_weights(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    source = tiny("phi4")
    settings = replace(SHORT, units={"neurons": 0.5}, score="magnitude")
    shrink = prune(PruneRequest(str(source), tmp_path / "small", settings, text), Silent())
    weights = {name: np.abs(w) for name, w in matrices(source).items()}
    for index, units in shrink["result"]["kept"]["layers"].items():
        up = weights[f"model.layers.{index}.mlp.gate_up_proj.weight"]
        down = weights[f"model.layers.{index}.mlp.down_proj.weight"]
        mean = (up.reshape(2, -1, up.shape[1]).sum((0, 2)) + down.sum(0)) / (3 * up.shape[1])
        count = len(units["neurons"])
        assert count < len(mean)
        assert sorted(np.argsort(-mean)[:count].tolist()) == list(units["neurons"])
