"""`edge doctor`: each finding on a machine that is well, and on one that is not."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from edge import cli, doctor, machine

GB = 10**9


def test_this_machine_is_fit_for_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    findings = {f["what"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert {"Python", "packages", "onnxruntime", "onnxruntime-genai", "llama.cpp", "onnxruntime-qnn",
            "quantizer", "processor", "memory", "disk", "cache", "adb"} == set(findings)  # fmt: skip
    assert findings["onnxruntime"]["status"] == "ok"
    for finding in findings.values():
        assert bool(finding["hint"]) == (finding["status"] != "ok"), finding


def test_a_failure_is_exit_1_and_has_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: [doctor.Finding("disk", "fail", "full", "free some")])
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out == "fail  disk  full\n            hint: free some\n"


def test_an_npu_plugin_of_another_version_is_a_warning() -> None:
    found = doctor.npu(doctor.Finding("onnxruntime-qnn", "ok", "2.6.1"))
    assert (found.status, found.hint) == ("warn", "pip install onnxruntime-qnn==2.7.0")
    missing = doctor.Finding("onnxruntime-qnn", "warn", "is not installed", "x")
    assert doctor.npu(missing) == missing


def test_old_python() -> None:
    assert doctor.python((3, 10, 4)).status == "fail"
    assert doctor.python((3, 11, 0)).status == "ok"
    assert doctor.python((4, 0, 0)).status == "ok"


def test_packages_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"one": "2.1", "two": "1.0"}

    def version(name: str) -> str:
        if name not in have:
            raise PackageNotFoundError(name)
        return have[name]

    wanted = ["one>=2", "two>=1.1", "three", "four; extra == 'dev'", "five; python_version < '3'"]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor, "version", version)
    fail, ok = doctor.packages()
    assert (fail.status, fail.found) == ("fail", "two 1.0, three is missing")
    assert (ok.status, ok.found) == ("ok", "one 2.1")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("__version__ = '1.2'", "1.2"),
        ("raise ImportError('libfoo.so: cannot open shared object file')", "libfoo.so: cannot open"),
        ("import os; os.abort()", "ended with exit code -6"),
        (None, "is not installed"),
    ],
)
def test_engines(source: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if source is not None:
        (tmp_path / "fake_engine.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for needed, bad in ((True, "fail"), (False, "warn")):
        finding = doctor.engine("fake", "fake_engine", "pip install fake", needed=needed)
        assert found in finding.found
        assert finding.status == ("ok" if found == "1.2" else bad)


@pytest.mark.parametrize(("free", "status"), [(0.5, "fail"), (2, "warn"), (8, "ok")])
def test_memory(free: float, status: str) -> None:
    assert doctor.memory(16 * GB, int(free * GB)).status == status


@pytest.mark.parametrize(("free", "status"), [(0.5, "fail"), (5, "warn"), (50, "ok")])
def test_disk(free: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(free * GB)))
    assert doctor.disk("disk", tmp_path / "not" / "yet" / "made").status == status


def test_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)  # root may write anywhere
    finding = doctor.disk("cache", tmp_path)
    assert finding.status == "fail"
    assert "EDGE_CACHE_DIR" in finding.hint


@pytest.mark.parametrize(
    ("answer", "status", "found"),
    [
        ("List of devices attached\n\n", "warn", "no phone"),
        ("List of devices attached\nA1\tunauthorized\n", "warn", "A1 is unauthorized"),
        ("* daemon started *\nList of devices attached\nA1\tdevice\nB2\toffline\n", "ok", "1 device(s): A1"),
    ],
)
def test_adb(answer: str, status: str, found: str, tmp_path: Path) -> None:
    program = tmp_path / "adb"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}END\n")
    program.chmod(0o755)
    finding = doctor.adb(str(program))
    assert finding.status == status
    assert found in finding.found
    program.write_text("no program")
    assert doctor.adb(str(program)).status == "warn"
    assert doctor.adb(None).status == "warn"


def test_slow_processors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for sets, status in ((["SSE4.2"], "warn"), (["AVX", "AVX2"], "ok"), (["NEON"], "ok"), ([], "ok")):
        monkeypatch.setattr(machine, "instruction_sets", lambda sets=sets: sets)
        assert doctor.cores().status == status


def test_machine_facts_are_sane() -> None:
    total, available = machine.memory()
    assert 0 < available <= total
    assert machine.cores() >= 1
    before = machine.peak_memory()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    assert machine.peak_memory() >= max(before, 64 << 20)
