"""What a Windows machine needs to run the folders of target "windows": wheels, libraries, an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge.directml_machine import (
    RIVALS,
    RUNTIME_LIBRARIES,
    SYSTEM_LIBRARIES,
    WHEEL_LIBRARIES,
    WHEELS,
    Adapter,
    Machine,
)
from edge.finding import Finding
from edge.formats import INSTALL_DIRECTML

LEAST_BUILD = 18362
"""Windows 10, version 1903 (onnxruntime.ai, DirectML execution provider, requirements)."""
LEAST_FEATURE_LEVEL = 0xB000
"""D3D_FEATURE_LEVEL_11_0, the least that a DirectX 12 device has (d3dcommon.h)."""
_SOFTWARE_ADAPTER = "Microsoft Basic Render Driver"


def findings(machine: Machine) -> Iterator[Finding]:
    """What `edge doctor` says; warnings only, for nothing but the target needs it, unless the wheels are there."""
    yield windows(machine.build)
    yield wheels(machine.packages)
    yield libraries(machine.libraries, installed=bool(machine.packages.keys() & WHEELS))
    yield adapter(machine.adapters)


def windows(build: int) -> Finding:
    if build < LEAST_BUILD:
        return Finding(
            "Windows",
            "warn",
            f"build {build}",
            f"DirectML wants build {LEAST_BUILD} (Windows 10, 1903) or newer",
        )
    return Finding("Windows", "ok", f"build {build}")


def wheels(packages: Mapping[str, str]) -> Finding:
    """Whether the wheels for DirectML are those that were tested for, and alone."""
    what = "DirectML wheels"
    text = ", ".join(f"{name} {packages[name]}" for name in WHEELS if name in packages)
    if not text:
        return Finding(what, "warn", "are not installed (only for --target windows)", INSTALL_DIRECTML)
    both = [rival for name, rival in RIVALS.items() if name in packages and rival in packages]
    if both:
        removed = f"pip uninstall {' '.join([*both, *WHEELS])}"
        return Finding(
            what,
            "fail",
            f"{text}, and {', '.join(both)} in the same place",
            f"{removed}, then {INSTALL_DIRECTML}",
        )
    if missing := [name for name in WHEELS if name not in packages]:
        return Finding(what, "fail", f"{text}, without {', '.join(missing)}", INSTALL_DIRECTML)
    if other := [name for name, tested in WHEELS.items() if packages[name] != tested]:
        wanted = ", ".join(f"{name} {WHEELS[name]}" for name in other)
        return Finding(what, "warn", text, f"the graphs were written for {wanted}: {INSTALL_DIRECTML}")
    return Finding(what, "ok", text)


def libraries(found: frozenset[str], *, installed: bool) -> Finding:
    """`installed`: whether the wheels are, whose own libraries are then looked for too."""
    what = "DirectX 12"
    update, redistribute = (
        "update Windows: it brings DirectX 12",
        "install Microsoft's Visual C++ redistributable, x64",
    )
    for names, hint in ((SYSTEM_LIBRARIES, update), (RUNTIME_LIBRARIES, redistribute)):
        if missing := [name for name in names if name not in found]:
            return Finding(what, "warn", f"{', '.join(missing)} is missing", hint)
    own = list(WHEEL_LIBRARIES) if installed else []
    if missing := [name for name in own if name.lower() not in found]:
        again = f"{INSTALL_DIRECTML} --force-reinstall"
        return Finding(what, "fail", f"{', '.join(missing)} is missing from its wheel", again)
    return Finding(what, "ok", ", ".join([*SYSTEM_LIBRARIES, *own]))


def adapter(found: tuple[Adapter, ...] | None) -> Finding:
    """Whether a graphics processor is there that takes Direct3D 12, as far as the registry tells."""
    what = "graphics"
    real = [each for each in found or () if each.name != _SOFTWARE_ADAPTER]
    if found is None or (real and all(each.feature_level is None for each in real)):
        names = ", ".join(each.name for each in real) or "adapters"
        return Finding(
            what, "warn", f"{names}: Windows does not say what it can do", "run dxdiag, tab Display"
        )
    able = [each for each in real if (each.feature_level or 0) >= LEAST_FEATURE_LEVEL]
    if not able:
        names = ", ".join(each.name for each in real) or "no graphics processor"
        return Finding(what, "warn", f"{names}, without Direct3D 12", "use the CPU: --target cpu")
    levels = [(each.name, each.feature_level or 0) for each in able]
    text = ", ".join(f"{name} (Direct3D 12, level {level >> 12}.{level >> 8 & 15})" for name, level in levels)
    return Finding(what, "ok", text)
