"""Killed, interrupted, out of disk, read-only, or two at once: the old bundle or none, and nothing else touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.errors import BundleError, MachineError
from edge import bundle as bundles
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.staging import staging

Tiny = Callable[..., Path]
ROOT = Path(__file__).parent.parent.parent
# Large enough that a conversion takes a noticeable part of a second and its data outgrow a 4 MiB disk.
LARGER: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}


@pytest.fixture
def larger(tiny: Tiny) -> Path:
    return tiny("phi4", **LARGER)


def run(checkpoint: Path, output: Path) -> None:
    convert(plan(ConvertRequest(str(checkpoint), ("android", "cpu"), output=output, proof=False)), Silent())


def test_fifty_kills_leave_the_old_bundle_or_none(larger: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    command = [sys.executable, "-m", "tests.edge.kill_loop", str(larger), str(tmp_path / "b"), "50", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["killed"] >= 25, "too few conversions were still running when they were killed"
    assert result["kept_old"] >= 10
    assert result["nothing_there"] >= 10
    assert result["left"] == ["b", "precious.txt"]
    assert precious.read_text() == "mine"


def test_ctrl_c_cleans_up_and_exits_with_130(larger: Path, tmp_path: Path) -> None:
    edge = Path(sys.executable).with_name("edge")
    command = [str(edge), "convert", str(larger), "--target", "cpu", "-o", str(tmp_path / "deep" / "b")]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("deep/.b.edge-partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mount(options)`: a tmpfs with these mount options; skipped where this user may not mount."""
    made: list[Path] = []

    def make(options: str) -> Path:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting a tmpfs needs root")
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_too_small_is_refused_before_it_is_filled(larger: Path, mount: Callable[[str], Path]) -> None:
    disk = mount("size=4m")
    with pytest.raises(MachineError, match=r"needs .* MB, its disk has"):
        run(larger, disk / "b")
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_is_left_clean(
    larger: Path, mount: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = mount("size=4m")
    monkeypatch.setattr("edge.convert._require_space", lambda planned, directory: None)
    with pytest.raises(MachineError, match="is full"):
        run(larger, disk / "b")
    assert list(disk.iterdir()) == []


def test_a_read_only_place_is_the_persons_to_change(larger: Path, mount: Callable[[str], Path]) -> None:
    with pytest.raises(BundleError, match="cannot write"):
        run(larger, mount("ro") / "b")


def test_a_directory_without_permission(larger: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere; a file in the place of a directory is refused to root too.
        (tmp_path / "locked").write_text("")
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises((BundleError, MachineError)):
        run(larger, tmp_path / "locked" / "b")


def test_the_second_of_two_conversions_into_one_place_is_told(larger: Path, tmp_path: Path) -> None:
    with staging(tmp_path / "b") as first:
        (first / "manifest.json").write_text("{}")
        with pytest.raises(BundleError, match="another conversion is writing"):
            run(larger, tmp_path / "b")
        assert (first / "manifest.json").exists(), "the second removed what the first was writing"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_what_a_killed_run_left_is_removed_by_the_next(larger: Path, tmp_path: Path) -> None:
    (tmp_path / ".b.edge-partial" / "onnx-int4").mkdir(parents=True)
    (tmp_path / ".b.edge-partial" / "onnx-int4" / "model.onnx.data").write_bytes(b"half")
    (tmp_path / ".b.edge-lock").write_bytes(b"")
    run(larger, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert bundles.damage(bundles.load(tmp_path / "b")) == []


def test_without_an_atomic_exchange_a_kill_between_the_renames_is_recovered(
    larger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(larger, tmp_path / "b")
    before = bundles.load(tmp_path / "b").manifest
    (tmp_path / "b").rename(tmp_path / ".b.edge-old")
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "b"):
        raise ZeroDivisionError
    assert bundles.load(tmp_path / "b").manifest == before
    monkeypatch.setattr("edge.staging._exchange", lambda one, other: False)
    run(larger, tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert bundles.damage(bundles.load(tmp_path / "b")) == []


def test_an_error_in_the_middle_keeps_the_old_bundle(
    larger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(larger, tmp_path / "b")
    before = bundles.load(tmp_path / "b").manifest

    def fail(*_: object, **__: object) -> None:
        raise MachineError("the engine fell over", hint="none")

    monkeypatch.setattr("edge.convert.build_manifest", fail)
    with pytest.raises(MachineError):
        run(larger, tmp_path / "b")
    assert bundles.load(tmp_path / "b").manifest == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
