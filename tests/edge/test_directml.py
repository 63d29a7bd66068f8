"""`edge doctor` on Windows: what it says of what it found. Nothing here needs Windows, and Linux hears nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edge import cli
from edge.directml import adapter, findings, libraries, wheels, windows
from edge.directml_machine import (
    RUNTIME_LIBRARIES,
    SYSTEM_LIBRARIES,
    WHEELS,
    Adapter,
    Machine,
    look,
    read_adapters,
)

SYSTEM = frozenset({*SYSTEM_LIBRARIES, *RUNTIME_LIBRARIES})
ALL = SYSTEM | {"directml.dll", "d3d12core.dll"}
GPU = Adapter("Radeon 780M", 0xC100)


def test_a_machine_that_is_well() -> None:
    found = list(findings(Machine(22631, WHEELS, ALL, (GPU,))))
    assert [each.status for each in found] == ["ok"] * 4
    assert not any(each.hint for each in found)
    assert found[-1].found == "Radeon 780M (Direct3D 12, level 12.1)"


def test_a_machine_that_has_nothing_is_warned_and_not_failed() -> None:
    """Only the target windows needs it."""
    found = list(findings(Machine(17763, {}, frozenset(), ())))
    assert [each.status for each in found] == ["warn"] * 4
    assert all(each.hint for each in found)


@pytest.mark.parametrize(("build", "status"), [(18361, "warn"), (18362, "ok"), (26100, "ok")])
def test_windows(build: int, status: str) -> None:
    assert windows(build).status == status


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        (WHEELS, "ok", "onnxruntime-directml 1.24.4"),
        ({}, "warn", "not installed"),
        ({"onnxruntime-genai": "0.18.0", "onnxruntime": "1.32.0"}, "warn", "not installed"),
        (WHEELS | {"onnxruntime": "1.32.0"}, "fail", "and onnxruntime in the same place"),
        ({"onnxruntime-directml": "1.24.4"}, "fail", "without onnxruntime-genai-directml"),
        (WHEELS | {"onnxruntime-directml": "1.20.1"}, "warn", "onnxruntime-directml 1.20.1"),
    ],
)
def test_wheels(packages: dict[str, str], status: str, said: str) -> None:
    found = wheels(packages)
    assert found.status == status
    assert said in found.found
    assert bool(found.hint) == (status != "ok")


@pytest.mark.parametrize(
    ("there", "installed", "status", "said"),
    [
        (ALL, True, "ok", "DirectML.dll"),
        (SYSTEM, False, "ok", "d3d12.dll, dxgi.dll"),
        (ALL - {"d3d12.dll"}, True, "warn", "d3d12.dll is missing"),
        (ALL - {"msvcp140_1.dll"}, True, "warn", "msvcp140_1.dll is missing"),
        (ALL - {"directml.dll"}, True, "fail", "DirectML.dll is missing from its wheel"),
    ],
)
def test_libraries(there: frozenset[str], installed: bool, status: str, said: str) -> None:
    found = libraries(there, installed=installed)
    assert found.status == status
    assert said in found.found


@pytest.mark.parametrize(
    ("adapters", "status", "said"),
    [
        ((GPU,), "ok", "Radeon 780M"),
        (
            (Adapter("Microsoft Basic Render Driver", 0xC100), GPU),
            "ok",
            "Radeon 780M (Direct3D 12, level 12.1)",
        ),
        ((Adapter("Microsoft Basic Render Driver", 0xC100),), "warn", "no graphics processor, without"),
        ((Adapter("GeForce 8400", 0xA000),), "warn", "GeForce 8400, without Direct3D 12"),
        ((Adapter("Arc A380", None),), "warn", "Arc A380: Windows does not say"),
        ((), "warn", "no graphics processor"),
        (None, "warn", "Windows does not say"),
    ],
)
def test_adapters(adapters: tuple[Adapter, ...] | None, status: str, said: str) -> None:
    found = adapter(adapters)
    assert found.status == status
    assert said in found.found


class _Registry:
    """The part of the module winreg that is used, over a dictionary of keys."""

    HKEY_LOCAL_MACHINE = "HKLM"

    def __init__(self, keys: dict[str, dict[str, Any]]) -> None:
        self._keys = keys

    @contextmanager
    def OpenKey(self, parent: str, name: str) -> Iterator[str]:  # noqa: N802  # winreg's own name
        path = f"{parent}\\{name}"
        if path not in self._keys:
            raise FileNotFoundError(path)
        yield path

    def _below(self, key: str) -> list[str]:
        return [path[len(key) + 1 :] for path in self._keys if path.startswith(key + "\\")]

    def QueryInfoKey(self, key: str) -> tuple[int, int, int]:  # noqa: N802
        return len(self._below(key)), len(self._keys[key]), 0

    def EnumKey(self, key: str, index: int) -> str:  # noqa: N802
        return self._below(key)[index]

    def QueryValueEx(self, key: str, name: str) -> tuple[Any, int]:  # noqa: N802
        if name not in self._keys[key]:
            raise FileNotFoundError(name)
        return self._keys[key][name], 4


def test_the_registry_is_read() -> None:
    root = r"HKLM\SOFTWARE\Microsoft\DirectX"
    keys: dict[str, dict[str, Any]] = {
        root: {"Version": "4.09"},
        rf"{root}\{{a}}": {"Description": "Radeon 780M", "MaxD3D12FeatureLevel": 0xC100},
        rf"{root}\{{b}}": {"Description": "Arc A380"},
        rf"{root}\UserGpuPreferences": {},
    }
    assert read_adapters(_Registry(keys)) == (GPU, Adapter("Arc A380", None))
    assert read_adapters(_Registry({})) is None


@pytest.mark.skipif(sys.platform == "win32", reason="what other systems hear")
def test_elsewhere_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--json"])
    said = {each["what"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert not said & {each.what for each in findings(look())}
