"""What `pip install .` brings: no torch, no transformers, no compiler for the engines; and the data files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from edge.formats import INSTALL_LLAMA_CPP

ROOT = Path(__file__).parent.parent
DATA = {".toml", ".txt", ".json", ".jsonl", ".html", ".css", ".lock", ".pyi"}
"""What modules open; sources of C and READMEs stay behind."""
HEAVY = {"torch", "transformers", "accelerate", "optimum", "llama-cpp-python"}


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Every distribution that installing `name[extras]` pulls in on this platform."""
    found: set[str] = set()
    queue = [(name, extras)]
    while queue:
        current, wanted = queue.pop()
        for line in distribution(current).requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                continue
            key = requirement.name.lower().replace("_", "-")
            if key not in found:
                found.add(key)
                queue.append((key, frozenset(requirement.extras)))
    return found


def test_the_core_install_pulls_no_heavy_guest() -> None:
    core = closure("edge", frozenset())
    assert {"onnxruntime-genai", "numpy", "gguf", "typer"} <= core
    assert not core & HEAVY


def test_the_extra_brings_llama_cpp() -> None:
    pins = [line for line in distribution("edge").requires or [] if line.startswith("llama-cpp-python")]
    assert INSTALL_LLAMA_CPP.removeprefix("pip install ") == pins[0].split(";")[0].strip()
    assert closure("edge", frozenset({"gguf"})) & HEAVY == {"llama-cpp-python"}


def test_a_wheel_holds_all_data_files_and_only_the_three_rooms(tmp_path: Path) -> None:
    # Of a copy: a build leaves files in the source tree, and an old one there would end up in the wheel.
    source = tmp_path / "source"
    keep = (
        "edge",
        "converters",
        "quant",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "models.lock",
    )
    for name in keep:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    command = [
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run([sys.executable, "-m", *command], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("edge-*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"edge", "converters", "quant"}
    data = [
        f for room in ("edge", "converters", "quant") for f in (ROOT / room).rglob("*") if f.suffix in DATA
    ]
    assert len(data) > 10
    assert not {str(file.relative_to(ROOT)) for file in data} - set(names)
    # edge/apps is a link to apps, and pip copies what it leads to.
    apps = {f"edge/{file.relative_to(ROOT)}" for file in (ROOT / "apps").rglob("*") if file.is_file()}
    assert len(apps) > 10
    assert not apps - set(names)
