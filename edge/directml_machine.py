"""What is on a Windows machine of what DirectML needs, read off it without judging and without loading native code.

The libraries are those that onnxruntime.dll and DirectML.dll of onnxruntime-directml 1.24.4 import or load, less what
every Windows has.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WHEELS = {"onnxruntime-genai-directml": "0.13.1", "onnxruntime-directml": "1.24.4"}
"""By name, the version whose kernels `converters.onnx.dml` was written for."""
RIVALS = {"onnxruntime-genai-directml": "onnxruntime-genai", "onnxruntime-directml": "onnxruntime"}
"""Wheels that put their files where those do: the one installed last is what is imported."""
SYSTEM_LIBRARIES = ("d3d12.dll", "dxgi.dll")
RUNTIME_LIBRARIES = ("msvcp140.dll", "msvcp140_1.dll", "vcruntime140.dll", "vcruntime140_1.dll")
WHEEL_LIBRARIES = {"DirectML.dll": ("onnxruntime", "capi"), "D3D12Core.dll": ("onnxruntime_genai",)}
"""Where a wheel puts them: the module, and a folder in it."""
_ADAPTERS = r"SOFTWARE\Microsoft\DirectX"


@dataclass(frozen=True)
class Adapter:
    """A graphics adapter as the registry describes it. feature_level: Direct3D 12's, None where it does not say."""

    name: str
    feature_level: int | None


@dataclass(frozen=True)
class Machine:
    """build: Windows' number. packages: versions of those of WHEELS and RIVALS that are installed. libraries: names,
    in small letters, of those that were looked for and are there. adapters: None where they cannot be told."""

    build: int
    packages: Mapping[str, str]
    libraries: frozenset[str]
    adapters: tuple[Adapter, ...] | None


def look() -> Machine:
    """This machine, which runs Windows. No native code of the wheels is loaded."""
    build = int(platform.version().split(".")[2]) if sys.platform == "win32" else 0
    system = [Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32", Path(sys.executable).parent]
    places = dict.fromkeys((*SYSTEM_LIBRARIES, *RUNTIME_LIBRARIES), system)
    for name, (module, *folders) in WHEEL_LIBRARIES.items():
        places[name] = [Path(root, *folders) for root in _folders_of(module)]
    there = {name.lower() for name, folders in places.items() if any((f / name).is_file() for f in folders)}
    return Machine(build, installed_packages(), frozenset(there), _registry_adapters())


def installed_packages() -> dict[str, str]:
    found = {}
    for name in (*WHEELS, *RIVALS.values()):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _folders_of(module: str) -> list[str]:
    """Where a module lies, without importing it."""
    spec = find_spec(module)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _registry_adapters() -> tuple[Adapter, ...] | None:
    try:
        import winreg
    except ImportError:
        return None
    return read_adapters(winreg)


def read_adapters(registry: Any) -> tuple[Adapter, ...] | None:
    """The adapters that Windows notes under HKEY_LOCAL_MACHINE, with `registry` for the module winreg; None when the
    key cannot be read."""
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _ADAPTERS) as key:
            names = [registry.EnumKey(key, index) for index in range(registry.QueryInfoKey(key)[0])]
            return tuple(each for name in names if (each := _adapter(registry, key, name)) is not None)
    except OSError:
        return None


def _adapter(registry: Any, parent: Any, name: str) -> Adapter | None:
    with registry.OpenKey(parent, name) as key:
        try:
            description = str(registry.QueryValueEx(key, "Description")[0])
        except OSError:
            return None
        try:
            return Adapter(description, int(registry.QueryValueEx(key, "MaxD3D12FeatureLevel")[0]))
        except OSError:
            return Adapter(description, None)
