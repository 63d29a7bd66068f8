"""The loop: a run that stops and goes on ends with the bits of one that did not; what is not finite ends it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.errors import CheckpointError, TrainingError, UnsupportedError
from quant.distill.training import Report, TrainOptions, rate, sample, train

OPTIONS = TrainOptions(steps=9, seed=3, warm_up=2, save_every=4)
DATA = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 6))
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def run(
    state: Path | None = None, *, stop: int = 0, poison: int = -1, how: str = "signal", **more
) -> torch.nn.Module:
    """Train a model with dropout; interrupted after step `stop`, with a NaN as input of step `poison`."""
    model, optimizer = build()

    def batch(step: int) -> torch.Tensor:
        return DATA[sample(3, step, len(DATA), 8)] * (torch.nan if step == poison else 1)

    def report(told: Report) -> None:
        if told.step == stop:
            if how == "kill":
                raise RuntimeError("as if killed")
            os.kill(os.getpid(), signal.SIGINT)

    def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"fit": (model(x) - x).square().mean(), "size": 1e-3 * model(x).abs().mean()}

    model.last = train(
        model, optimizer, batch, losses, more.pop("options", OPTIONS), state=state, report=report, **more
    )
    return model


def bits(model: torch.nn.Module) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in model.parameters()]


@pytest.mark.parametrize(("stop", "how"), [(3, "signal"), (4, "signal"), (6, "kill"), (9, "signal")])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path, stop: int, how: str) -> None:
    whole = run()
    state = tmp_path / "run" / "state.pt"
    with pytest.raises(KeyboardInterrupt if how == "signal" else RuntimeError):
        run(state, stop=stop, how=how)
    resumed = run(state)
    assert bits(resumed) == bits(whole)
    assert resumed.last == whole.last
    assert bits(run(state)) == bits(whole), "a finished run is only loaded"
    assert [f.name for f in state.parent.iterdir()] == ["state.pt"]


def test_ctrl_c_saves_the_step_that_it_came_in_and_gives_the_handler_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", stop=3)
    assert torch.load(tmp_path / "s", weights_only=True)["step"] == 3  # not a multiple of save_every
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_stops_with_the_step_and_the_last_good_state_stays(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with pytest.raises(
        TrainingError, match=r"step 7: fit nan, size nan; the state after step 4 is kept in .*state.pt"
    ):
        run(state, poison=6)
    assert bits(run(state)) == bits(run()), "the cause removed, it goes on from there"


def test_infinite_gradients_and_weights_stop_too(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    before = bits(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    zero = torch.zeros(1, requires_grad=False)
    with pytest.raises(TrainingError, match="step 1: gradient norm"):
        # The square root is finite at 0, and its slope is not.
        train(model, optimizer, lambda _: zero, lambda x: {"root": (model.weight * x).sum().sqrt()}, OPTIONS)
    assert bits(model) == before
    huge = torch.optim.SGD(model.parameters(), lr=3e38)
    once, state = TrainOptions(steps=1, clip=0), tmp_path / "s"
    with pytest.raises(TrainingError, match="step 1: weights"):
        train(model, huge, lambda _: 9.0, lambda x: {"far": x * model.weight.sum()}, once, state=state)
    assert not state.exists(), "a state that is saved is finite"


def test_the_state_of_another_run_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    run(state, run="a")
    with pytest.raises(UnsupportedError, match="other settings"):
        run(state, run="b")
    state.write_bytes(state.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match="is damaged"):
        run(state, run="a")


def test_statistics_beside_the_model_are_resumed(tmp_path: Path) -> None:
    class Count:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def state_dict(self) -> dict[str, list[int]]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, list[int]]) -> None:
            self.seen = state["seen"]

    count = Count()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", stop=5, after_step=count.seen.append, also={"count": count})
    count = Count()
    # The list is replaced when the state is loaded, so it is looked up at each step.
    run(tmp_path / "s", after_step=lambda step: count.seen.append(step), also={"count": count})
    assert count.seen == list(range(1, 10))


def test_rates_rise_then_fall_to_nothing() -> None:
    options = TrainOptions(steps=10, warm_up=4)
    assert [rate(s, options) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate(9, options) == pytest.approx(1 / 6)
    assert rate(0, TrainOptions(steps=10)) == 1.0


def test_every_epoch_has_each_example_once_in_an_order_of_its_own() -> None:
    # 7 does not divide 20: batches cross the border of an epoch.
    indices = np.concatenate([sample(5, step, 20, 7) for step in range(20)])
    epochs = indices.reshape(-1, 20)
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_bfloat16_is_of_the_products_only() -> None:
    model, kinds = run(options=TrainOptions(steps=3, bf16=True)), set()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    plain = torch.nn.Linear(4, 4)

    def losses(x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = plain(x)
        kinds.add(y.dtype)
        return {"y": y.square().mean()}

    options = TrainOptions(steps=1, bf16=True)
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), lambda _: torch.ones(2, 4), losses, options)
    assert kinds == {torch.bfloat16}
