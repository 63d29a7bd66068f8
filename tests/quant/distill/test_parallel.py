"""Two processes train as one does with the whole batch, stop together, and go on where they were."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from converters.errors import UnsupportedError
from quant.distill.launch import check_alone, check_together, place
from quant.distill.parallel import share
from quant.distill.training import TrainOptions, train
from tests.quant.distill import parallel_worker


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("two")
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", parallel_worker.__name__, directory],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_compute_the_step_of_one(two: list[dict[str, Any]]) -> None:
    # Sums of the same float32 numbers in another order: 1e-7 of a step's size, and Adam's division by small moments.
    alone = parallel_worker.run()
    for found in two:
        np.testing.assert_allclose(found["plain"]["losses"], alone["losses"], rtol=1e-5)
        assert found["plain"]["last"].keys() == alone["last"].keys()
        for here, there in zip(found["plain"]["weights"], alone["weights"], strict=True):
            torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    # The parts' means must differ in weight for this to say something.
    lengths = parallel_worker.LENGTHS.numpy()[parallel_worker.sample(3, 0, 24, 8)]
    assert abs(lengths[:4].sum() / lengths.sum() - 0.5) > 0.02


def test_both_have_the_same_bits_and_drop_different_ones(two: list[dict[str, Any]]) -> None:
    for name in ("plain", "whole"):
        assert all(map(torch.equal, two[0][name]["weights"], two[1][name]["weights"]))
        assert two[0][name]["losses"] == two[1][name]["losses"]
    assert two[0]["whole"]["losses"] != two[0]["plain"]["losses"]


def test_one_process_s_interrupt_stops_both_and_the_resumed_run_has_the_bits_of_a_whole_one(
    two: list[dict[str, Any]],
) -> None:
    for found in two:
        assert found["interrupted"] == "KeyboardInterrupt "
        assert found["saved"] == 3
        assert all(map(torch.equal, found["resumed"]["weights"], found["whole"]["weights"]))
        assert found["resumed"]["losses"] == found["whole"]["losses"][3:]


def test_what_is_wrong_in_one_process_stops_both_alike(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "diverged at step 5: positions nan" in found["poisoned"]
        assert "go on from different steps: 0, 8" in found["elsewhere"]


def test_every_example_is_one_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place().size == 1
    indices = np.arange(11)
    monkeypatch.setenv("WORLD_SIZE", "4")
    parts = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(share(indices))
    assert np.array_equal(np.concatenate(parts), indices)
    assert min(map(len, parts)) >= 2


def test_what_is_not_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    check_together(1)
    check_alone("edge convert")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnsupportedError, match="one process, and 2 were launched"):
        train(model, optimizer, lambda _: 0, lambda _: {}, TrainOptions(steps=1))
    with pytest.raises(UnsupportedError, match="a batch of 1 leaves some of the 2"):
        check_together(1)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UnsupportedError, match="FSDP"):
        check_together(8)
