"""`edge doctor`: what this machine can do, as one line a finding, each with a hint where it is not ok."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from edge import directml, machine
from edge.directml_machine import look
from edge.finding import Finding, Status
from edge.formats import INSTALL_LLAMA_CPP, QNN, TESTED_QNN

MINIMUM_PYTHON = (3, 11)
# A conversion's own peak (under 512 MiB) and the engine that proves the smallest models.
LOW_MEMORY, LEAST_MEMORY = 4 << 30, 1 << 30
# A 3.8B model in int4 takes 2.3 GB; its checkpoint 7.7 GB.
LOW_DISK, LEAST_DISK = 12 << 30, 1 << 30


def examine(directory: Path) -> list[Finding]:
    """Every check, in the order in which they are worth fixing. `directory`: whose disk is looked at."""
    return [
        python(sys.version_info[:3]),
        *packages(),
        engine("onnxruntime", "onnxruntime", "pip install onnxruntime", needed=True),
        engine("onnxruntime-genai", "onnxruntime_genai", "pip install onnxruntime-genai", needed=True),
        engine(
            "llama.cpp",
            "llama_cpp",
            f"{INSTALL_LLAMA_CPP} (compiles for some minutes)",
            needed=False,
        ),
        npu(engine("onnxruntime-qnn", QNN.module, QNN.install, needed=False)),
        kernel(),
        cores(),
        memory(*machine.memory()),
        *disks(directory),
        adb(shutil.which("adb")),
        *(directml.findings(look()) if sys.platform == "win32" else ()),
    ]


def python(found: tuple[int, int, int]) -> Finding:
    text = f"{'.'.join(map(str, found))} ({platform.python_implementation()}), {machine.describe()}"
    if found[:2] < MINIMUM_PYTHON:
        return Finding("Python", "fail", text, "install Python 3.11 or newer and make a new environment")
    return Finding("Python", "ok", text)


def packages() -> Iterator[Finding]:
    """The declared dependencies against what is installed."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in requires("edge") or []]
    except PackageNotFoundError:
        yield Finding("packages", "fail", "edge itself is not installed", "pip install -e .")
        return
    wrong: list[str] = []
    right: list[str] = []
    for requirement in declared:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        text = f"{requirement.name} {have}"
        (right if requirement.specifier.contains(have, prereleases=True) else wrong).append(text)
    if wrong:
        yield Finding("packages", "fail", ", ".join(wrong), "pip install --upgrade edge")
    yield Finding("packages", "ok", ", ".join(right))


def engine(name: str, module: str, install: str, *, needed: bool) -> Finding:
    """Whether an engine loads, in a process of its own: a broken wheel can end the process, not only raise."""
    code = f"import {module}; print(getattr({module}, '__version__', 'unknown version'))"
    status: Status = "fail" if needed else "warn"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(
            name, status, "does not finish importing in 120 s", f"try `python -c 'import {module}'`"
        )
    if done.returncode == 0:
        return Finding(name, "ok", done.stdout.strip())
    last = (done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"])[-1]
    if "ModuleNotFoundError" in last and f"'{module}'" in last:
        return Finding(name, status, "is not installed", install)
    return Finding(name, status, f"does not load: {last}", install)


def npu(loads: Finding) -> Finding:
    """Qualcomm's plugin, which NPU targets need: that it loads, in the version that edge was tested with."""
    if loads.status == "ok" and loads.found != TESTED_QNN:
        return Finding(loads.what, "warn", f"{loads.found}; NPU targets take {TESTED_QNN} alone", QNN.install)
    return loads


def kernel() -> Finding:
    """Whether the compiled quantizer is in use; without it numpy does the same, ten times slower."""
    try:
        from quant.blocks import KERNEL
    except ImportError as error:
        return Finding("quantizer", "fail", f"does not load: {error}", "pip install --upgrade edge")
    if KERNEL:
        return Finding("quantizer", "ok", "compiled")
    return Finding(
        "quantizer",
        "warn",
        "numpy only: same result, slower",
        "install a C compiler, then pip install -e . again",
    )


def cores() -> Finding:
    count, sets = machine.cores(), machine.instruction_sets()
    text = f"{count} core{'s' if count != 1 else ''}, {', '.join(sets) or 'instruction sets unknown'}"
    if sets and not {"AVX2", "NEON"} & set(sets):
        return Finding(
            "processor", "warn", text, "the engines are slow without AVX2 or NEON: use another machine"
        )
    return Finding("processor", "ok", text)


def memory(total: int, available: int) -> Finding:
    text = f"{available / 1e9:.1f} of {total / 1e9:.1f} GB available"
    if available < LEAST_MEMORY:
        return Finding("memory", "fail", text, "close programs: a conversion with its proof takes about 1 GB")
    if available < LOW_MEMORY:
        return Finding(
            "memory", "warn", text, "enough to convert; a 4B model wants about 4 GB to be proven and run"
        )
    return Finding("memory", "ok", text)


def disks(directory: Path) -> list[Finding]:
    """Where bundles go, and where downloads go."""
    places = {"disk": directory}
    try:
        from edge.sources.cache import cache_directory
    except ImportError:
        pass  # some package is missing, which another finding tells
    else:
        places["cache"] = cache_directory()
    return [disk(what, place) for what, place in places.items()]


def disk(what: str, place: Path) -> Finding:
    existing = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.1f} GB free in {place}"
    move = "set EDGE_CACHE_DIR to another disk" if what == "cache" else "or name another place with -o"
    if not os.access(existing, os.W_OK):
        return Finding(what, "fail", f"{place} cannot be written", f"check its permissions, {move}")
    if free < LEAST_DISK:
        return Finding(what, "fail", text, f"free some space, {move}")
    if free < LOW_DISK:
        return Finding(what, "warn", text, f"a 4B model with its bundle wants about 12 GB: free some, {move}")
    return Finding(what, "ok", text)


def adb(program: str | None) -> Finding:
    """Only running on an Android phone needs it; `adb devices` starts adb's server."""
    if program is None:
        return Finding(
            "adb", "warn", "is not installed (only for running on a phone)", "install Android platform-tools"
        )
    try:
        done = subprocess.run([program, "devices"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("adb", "warn", f"does not answer: {error}", f"try `{program} kill-server`")
    states = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    ready = [name for name, state in states if state == "device"]
    if ready:
        return Finding("adb", "ok", f"{len(ready)} device(s): {', '.join(ready)}")
    if states:
        return Finding(
            "adb", "warn", f"{states[0][0]} is {states[0][1]}", "unlock the phone and allow USB debugging"
        )
    return Finding("adb", "warn", "no phone is connected", "connect one with USB debugging on: `adb devices`")
