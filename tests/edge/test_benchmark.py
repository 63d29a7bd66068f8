"""What a benchmark counts and how it takes turns. How fast this machine is, no test asks."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from converters.errors import UnsupportedError
from edge import cli
from edge.benchmark import Benchmark, Contender, Request, bench
from edge.benchmarking import bandwidth, turns
from edge.benchmarking.bandwidth import Bandwidth
from edge.benchmarking.lengths import fitting
from edge.benchmarking.results import Measured
from edge.benchmarking.spread import Spread
from edge.benchmarking.subject import Subject
from edge.benchmarking.traffic import Traffic
from edge.benchmarking.turns import Run
from edge.cli.bench_page import page
from edge.progress import Silent
from edge.reporting import speed
from edge.runtimes import EngineSettings
from tests.edge.engines import ENGINES, write_variant
from tests.edge.test_traffic import parameters

Tiny = Callable[..., Path]
CONTEXT = 256


@pytest.fixture(scope="module")
def variants(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("bench")
    return {engine: write_variant(engine, tiny("phi4"), directory, context=CONTEXT) for engine in ENGINES}


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 MiB: no test asks how fast the memory is."""
    monkeypatch.setattr(bandwidth, "_MOST_BYTES", 8 << 20)


def contender(path: Path, **settings: Any) -> Contender:
    return Contender(path, path.name, None, EngineSettings(threads=1, **settings))


def test_a_spread_is_the_median_and_ratios_pair_what_was_taken_together() -> None:
    slowing = Spread((1.0, 2.0, 4.0, 8.0))
    assert slowing.median == 3.0
    assert slowing.to_data() == {
        "median": 3.0, "min": 1.0, "max": 8.0, "q1": 1.75, "q3": 5.0, "samples": [1.0, 2.0, 4.0, 8.0]
    }  # fmt: skip
    twice = Spread(tuple(2 * s for s in slowing.samples))
    assert twice.over(slowing).samples == (2.0, 2.0, 2.0, 2.0)


class _Engine:
    """Notes who was asked for what."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.process, self._name, self._asked = self, name, asked

    def ask(self, **request: Any) -> dict[str, float]:
        self._asked.append(self._name)
        return {"seconds": float(len(self._asked)), "waited_seconds": 0.0}


def test_two_artifacts_take_turns_and_warm_up_uncounted() -> None:
    asked: list[str] = []
    live: Any = [_Engine("A", asked), _Engine("B", asked)]
    with Bandwidth(1) as memory:
        runs = turns.take_turns(live, 3, memory, Silent(), do="decode", depth=0, tokens=1)
    assert "".join(asked) == "AB" + "ABABAB"
    assert [[run.seconds for run in own] for own in runs] == [[3, 5, 7], [4, 6, 8]]
    assert all(run.bandwidth > 0 for own in runs for run in own)


def test_every_byte_of_the_buffer_is_read_and_the_threads_end() -> None:
    """A page that was never written is the system's page of zeros, which lies in the cache."""
    with Bandwidth(3) as memory:
        parts = memory._parts
        assert sum(part.nbytes for part in parts) == memory.nbytes == 8 << 20
        assert all(part.all() for part in parts)
        assert len(parts) == 3
        assert memory.measure() > 0


def _subject(name: str, context: int) -> Subject:
    return Subject(name, "engine", EngineSettings(), context, 0, None)


def test_lengths_fit_the_smaller_context_and_the_longest_is_named() -> None:
    pair = [_subject("a", 4096), _subject("b", 600)]
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    found = fitting(pair, None, None, 32, progress)
    assert (found.prompts, found.depths) == ((32, 128, 512), (0, 512))
    assert notes == ["left out, as the context of b is 600 tokens: depth 2048"]
    assert fitting(pair, [600, 1, 600], [567], 32, Silent()).prompts == (1, 600)
    with pytest.raises(UnsupportedError, match="depth 568 and 33 more tokens do not fit") as error:
        fitting(pair, None, [568], 32, Silent())
    assert error.value.hint.startswith("--depths 567")
    with pytest.raises(UnsupportedError, match="a prompt of 601"):
        fitting(pair, [601], None, 32, Silent())


def test_both_engines_beside_each_other_give_the_whole_of_the_schema(variants: dict[str, Path]) -> None:
    request = Request(
        tuple(contender(variants[engine]) for engine in ENGINES), prompts=(8, 40), depths=(0, 100), runs=2,
        decoded_tokens=3,
    )  # fmt: skip
    data = json.loads(json.dumps(bench(request, Silent()).to_data()))
    assert data["threads"] == 1
    assert data["peak_memory_from"] in ("VmHWM", "ru_maxrss", "peak_wset")
    assert 0 <= data["waited_for_cores"] <= 1
    first, second = data["artifacts"]
    assert (first["name"], second["name"]) == ("onnx", "tiny.gguf")
    for each in (first, second):
        assert each["context_length"] == CONTEXT
        assert [p["tokens"] for p in each["prompts"]] == [8, 40]
        assert [d["depth"] for d in each["depths"]] == [0, 100]
        for prompt in each["prompts"]:
            seconds = prompt["first_token_s"]["samples"]
            assert len(seconds) == 2
            assert prompt["tokens_per_s"]["samples"] == pytest.approx([prompt["tokens"] / s for s in seconds])
        shallow, deep = each["depths"]
        assert deep["bytes_per_token"] - shallow["bytes_per_token"] == 100 * each["kv_bytes_per_position"]
        assert all(math.isfinite(s) and s > 0 for s in shallow["bandwidth_share"]["samples"])
        assert each["memory"]["peak_bytes"] > each["memory"]["before_load_bytes"] > 0
    ratios = data["ratios"]["decode_tokens_per_s"]
    assert [ratio["depth"] for ratio in ratios] == [0, 100]
    own, other = (each["depths"][1]["tokens_per_s"]["samples"] for each in (first, second))
    assert ratios[1]["samples"] == pytest.approx([a / b for a, b in zip(own, other, strict=True)])
    assert [each.decode.keys() for each in speed.parse(data)] == [{0, 100}, {0, 100}]


def test_the_peak_holds_the_weights_and_not_the_parents_memory(tiny: Tiny, tmp_path: Path) -> None:
    """Every weight is touched; what this process has used before does not count (getrusage would say so)."""
    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}
    path = write_variant("gguf", tiny("phi4", **wide), tmp_path, context=64)
    own = np.ones(1 << 26)  # 512 MiB
    request = Request((contender(path),), prompts=(8,), depths=(), runs=1)
    memory = bench(request, Silent()).to_data()["artifacts"][0]["memory"]
    touched = 4 * sum(parameters("phi4", **wide))
    assert memory["peak_bytes"] - memory["before_load_bytes"] >= touched
    assert memory["peak_bytes"] < own.nbytes


def test_the_page_says_what_was_measured() -> None:
    fast, slow = Run(0.5, 0.0, 20e9), Run(1.0, 0.0, 10e9)
    measured = Measured(
        Subject("a/int4", "engine 1", EngineSettings(threads=2), 4096, 40_000_000, Traffic(10**8, 1000, None, 10**8)),
        Spread((0.25, 0.5, 1.0)), 300_000_000, {100: (fast, slow, slow)}, {2000: (fast, fast, slow)}, 32,
    )  # fmt: skip
    data = Benchmark((measured, measured), threads=2, runs=3, decoded_tokens=32, seed=0).to_data()
    data |= {
        "machine": data["machine"] | {"cores": 2},
        "peak_memory_from": "VmHWM",
        "last_level_cache_bytes": 0,
    }
    text = "\n".join(page(data))
    assert text.startswith(
        """\
2 threads on 2 cores, 3 runs: median (smallest to largest)
memory reads at 15 GB/s (10 to 20)

a/int4: engine 1, context 4096
load 500 ms (250 to 1000); peak memory 300 MB (VmHWM), 40.0 MB before the load
file 100 MB; a token reads 100 MB of weights and 1.0 kB for each position before it
prompt  first token     prefill
100     1 s (0.5 to 1)  100 tok/s (100 to 200)
depth  decode               of the memory's bandwidth
2000   64 tok/s (32 to 64)  32.6 % (32.6 to 32.6)
"""
    )
    assert text.endswith(
        """\
a/int4 over a/int4
                          ratio
load, time                1 x (1 to 1)
peak memory               1 x
first token of 100, time  1 x (1 to 1)
decode at 2000, speed     1 x (1 to 1)"""
    )


def test_the_command_prints_json_and_a_plot(
    variants: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "speed.svg"
    words = ["--runs", "1", "--threads", "1", "--tokens", "2", "--prompts", "4", "--depths", "0,9"]
    assert cli.main(["bench", str(variants["gguf"]), *words, "--plot", str(plot), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    data = json.loads(said.out)
    assert data["ratios"] is None
    assert data["artifacts"][0]["runtime"].startswith("llama.cpp")
    assert ElementTree.fromstring(plot.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_an_interrupt_ends_the_engines(variants: dict[str, Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "edge",
        "bench",
        str(variants["gguf"]),
        "--runs",
        "100000",
        "--threads",
        "1",
    ]
    command[1:3] = ["-c", "import sys; from edge.cli import main; sys.exit(main())"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    children: list[str] = []
    listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children and process.poll() is None:
        children = listing.read_text().split()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted")
    deadline = time.monotonic() + 30  # one that was starting ends when it finds nobody to ask it
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "an engine outlives the interrupted command"
        time.sleep(0.05)
