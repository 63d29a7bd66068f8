"""`edge package` with the real parts and tools: what is in the APK, that it is the same each time, that a failure
leaves nothing. No phone can be here: that it installs and starts is not shown by this file."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge import cli
from edge.packaging import android, elf, parts, publishing
from edge.progress import Silent

Tiny = Callable[..., Path]
CPU_VARIANT = android.APP / "java" / "core" / "dev" / "edge" / "core" / "CpuVariant.java"


@dataclass(frozen=True)
class Built:
    bundle: Path
    apk: Path


@pytest.fixture(scope="module")
def built(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("package")
    words = ["convert", str(tiny("phi4-mini")), "-t", "android", "--context", "64", "--no-proof"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        assert cli.main([*words, "-o", str(folder / "bundle")]) == 0
        for name in ("app.apk", "again.apk"):
            assert cli.main(["package", str(folder / "bundle"), "-o", str(folder / name), "--json"]) == 0
    return Built(folder / "bundle", folder / "app.apk")


def test_the_same_bundle_and_key_give_the_same_bytes(built: Built) -> None:
    assert built.apk.read_bytes() == built.apk.with_name("again.apk").read_bytes()


def test_the_debug_key_is_for_its_user_alone(built: Built) -> None:
    key = next(built.apk.parent.glob("data/edge/keys/*.keystore"))
    assert key.stat().st_mode & 0o077 == 0


def test_nothing_is_left_beside_the_apk(built: Built) -> None:
    assert sorted(p.name for p in built.apk.parent.iterdir()) == ["again.apk", "app.apk", "bundle", "data"]


def test_the_model_lies_in_it_as_it_is_and_is_described(built: Built) -> None:
    gguf = next(built.bundle.glob("*.gguf"))
    with zipfile.ZipFile(built.apk) as archive:
        described = json.loads(archive.read("assets/model.json"))
        stored = archive.getinfo(f"assets/{described['file']}")
        assert stored.compress_type == zipfile.ZIP_STORED
        assert archive.read(stored) == gguf.read_bytes()
    assert described["size"] == gguf.stat().st_size
    assert described["sha256"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    # Two layers of float16 keys and values, two heads of 16: what llama.cpp's own cache takes is tested in `fit`.
    shape = json.loads((built.bundle / "manifest.json").read_text())["model"]
    assert described["kv_bytes_per_token"] % (2 * 2 * shape["layers"]) == 0
    assert described["context"] == 64


def test_the_page_and_the_licences_are_in_it(built: Built) -> None:
    with zipfile.ZipFile(built.apk) as archive:
        names = set(archive.namelist())
    page = {f"assets/www/{f.relative_to(android.APP / 'www')}" for f in (android.APP / "www").rglob("*") if f.is_file()}
    assert page
    assert page <= names
    assert {"assets/licences/llama.cpp.txt", "assets/licences/llama.rn.txt"} <= names


def test_every_library_that_the_app_may_choose_is_in_it_and_loads_on_a_phone(built: Built, tmp_path: Path) -> None:
    chosen = {f"lib/arm64-v8a/lib{name}.so" for name in re.findall(r'"(rnllama_\w+)"', CPU_VARIANT.read_text())}
    assert len(chosen) == 3
    with zipfile.ZipFile(built.apk) as archive:
        libraries = {name for name in archive.namelist() if name.startswith("lib/")}
        assert libraries == chosen | {"lib/arm64-v8a/libedge_llama.so"}
        for name in libraries:
            assert elf.check(Path(archive.extract(name, tmp_path))).aligned == elf.PAGE


def test_another_reader_finds_the_classes(built: Built, tmp_path: Path) -> None:
    dexdump = shutil.which("dexdump")
    assert dexdump, "apt-get install dexdump"
    with zipfile.ZipFile(built.apk) as archive:
        dex = archive.extract("classes.dex", tmp_path)
    told = subprocess.run([dexdump, dex], capture_output=True, text=True, check=True).stdout
    classes = set(re.findall(r"Class descriptor\s+: 'L([\w/$]+);'", told))
    assert {"dev/edge/app/MainActivity", "dev/edge/core/Controller", "dev/edge/core/Llama"} <= classes
    assert not [name for name in classes if not name.startswith("dev/edge/")], "a stub in the app"


def test_a_constant_that_a_phone_sets_is_read_there(built: Built, tmp_path: Path) -> None:
    """javac copies what a stub declares as a constant; SDK_INT and the insets must be read on the phone."""
    with zipfile.ZipFile(built.apk) as archive:
        dex = archive.extract("classes.dex", tmp_path)
    told = subprocess.run(["dexdump", "-d", dex], capture_output=True, text=True, check=True).stdout
    for field in ("Landroid/os/Build$VERSION;.SDK_INT:I", "Landroid/graphics/Insets;.top:I"):
        assert field in told


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "app.apk"
    output.write_text("old")
    with pytest.raises(KeyboardInterrupt), publishing.work_folder(output) as folder:
        (folder / "app.apk").write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"app.apk": "old"}


def test_a_part_that_was_altered_is_fetched_anew(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parts.fetch("llama.rn", Silent())
    licence = folder / "package" / "LICENSE"
    text = licence.read_bytes()
    licence.write_bytes(text + b"x")
    fetched = []

    def again(part: parts.Part, target: Path, *_: object) -> None:
        fetched.append(part.name)
        licence.write_bytes(text)

    monkeypatch.setattr(parts, "_unpack", again)
    parts.fetch("llama.rn", Silent())
    assert fetched == ["llama.rn"]
