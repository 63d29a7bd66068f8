"""`edge package` with the real parts and tools: what is in the APK, that it is the same each time, that a failure
leaves nothing. No phone can be here: that it installs and starts is not shown by this file."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.random_checkpoint import ALL_SHAPES
from converters.errors import SourceError
from edge import cli
from edge.packaging import android, elf, parts, publishing
from edge.progress import Silent
from tests import needs
from tests.edge.local_server import Site, serving

Tiny = Callable[..., Path]
CPU_VARIANT = android.APP / "java" / "core" / "dev" / "edge" / "core" / "CpuVariant.java"


@dataclass(frozen=True)
class Built:
    bundle: Path
    apk: Path


@pytest.fixture(scope="module")
def built(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Built:
    needs.android_tools()
    folder = tmp_path_factory.mktemp("package")
    words = ["convert", str(tiny("phi4-mini")), "-t", "android", "--context", "64", "--no-proof"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        assert cli.main([*words, "-o", str(folder / "bundle")]) == 0
        for name in ("app.apk", "again.apk"):
            assert cli.main(["package", str(folder / "bundle"), "-o", str(folder / name), "--json"]) == 0
    return Built(folder / "bundle", folder / "app.apk")


def test_an_app_of_ones_own(built: Built, tmp_path: Path) -> None:
    """Application id, name, version and icon reach the APK; a name's characters mean nothing to aapt."""
    title = """It's @"me" <&> \\n?"""
    Image.new("RGB", (200, 200), (128, 32, 32)).save(tmp_path / "icon.png")
    words = ["package", str(built.bundle), "-o", str(tmp_path / "own.apk"), "--id", "com.example.chat"]
    words += ["--title", title, "--app-version", "2.3.4", "--icon", str(tmp_path / "icon.png")]
    assert cli.main(words) == 0
    told = subprocess.run(
        ["aapt", "dump", "badging", tmp_path / "own.apk"], capture_output=True, text=True, check=True
    ).stdout
    assert "package: name='com.example.chat' versionCode='2003004' versionName='2.3.4'" in told
    assert "launchable-activity: name='dev.edge.app.MainActivity'" in told, "the class keeps its name"
    with zipfile.ZipFile(tmp_path / "own.apk") as archive:
        assert title.encode() in archive.read("resources.arsc")
        (icon,) = [name for name in archive.namelist() if "ic_foreground" in name]
        with Image.open(io.BytesIO(archive.read(icon))) as opened:
            layer = opened.convert("RGBA")
            assert layer.getpixel((216, 216)) == (128, 32, 32, 255)
            assert layer.getpixel((0, 0))[3] == 0, "what launchers cut away is empty"


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
    shape = ALL_SHAPES["phi4-mini"]
    head = shape["hidden_size"] // shape["num_attention_heads"]
    values = 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * head
    assert described["kv_bytes_per_token"] == 2 * values
    assert described["context"] == 64


def test_the_page_and_the_licences_are_in_it(built: Built) -> None:
    with zipfile.ZipFile(built.apk) as archive:
        names = set(archive.namelist())
    page = {
        f"assets/www/{f.relative_to(android.APP / 'www')}"
        for f in (android.APP / "www").rglob("*")
        if f.is_file()
    }
    assert page
    assert page <= names
    assert {"assets/licences/llama.cpp.txt", "assets/licences/llama.rn.txt"} <= names


def test_every_library_that_the_app_may_choose_is_in_it_and_loads_on_a_phone(
    built: Built, tmp_path: Path
) -> None:
    chosen = {
        f"lib/arm64-v8a/lib{name}.so" for name in re.findall(r'"(rnllama_\w+)"', CPU_VARIANT.read_text())
    }
    assert len(chosen) == 3
    locked = (
        parts.fetch("llama.rn", Silent()) / "package" / "android" / "src" / "main" / "jniLibs" / "arm64-v8a"
    )
    with zipfile.ZipFile(built.apk) as archive:
        libraries = {name for name in archive.namelist() if name.startswith("lib/")}
        assert libraries == chosen | {"lib/arm64-v8a/libedge_llama.so"}
        assert all(archive.read(name) == (locked / Path(name).name).read_bytes() for name in chosen)
        for name in libraries:
            assert elf.check(Path(archive.extract(name, tmp_path))).aligned == elf.PAGE


def test_another_reader_finds_the_classes(built: Built, tmp_path: Path) -> None:
    needs.programs(dexdump="dexdump")
    with zipfile.ZipFile(built.apk) as archive:
        dex = archive.extract("classes.dex", tmp_path)
    told = subprocess.run(["dexdump", dex], capture_output=True, text=True, check=True).stdout
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

    def interrupted() -> None:
        with publishing.work_folder(output) as folder:
            (folder / "app.apk").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"app.apk": "old"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A part `tool` of one member, in a registry on this machine and in a cache of its own."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/tool")
        member.size = 1 << 18
        archive.addfile(member, io.BytesIO(random.Random(0).randbytes(member.size)))
    data = content.getvalue()
    url, digest = f"{parts.NPM}tool/-/tool-1.tgz", hashlib.sha256(data).hexdigest()
    part = parts.Part("tool", "npm:tool@1", "MIT", url, len(data), digest, ("package/*",))
    with serving(Site(files={"/tool/-/tool-1.tgz": data})) as site:
        monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", site.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(parts, "read", lambda: [part])
        yield site


def test_a_part_is_fetched_once_and_again_when_its_files_were_altered(registry: Site) -> None:
    tool = parts.fetch("tool", Silent()) / "package" / "tool"
    content = tool.read_bytes()
    assert parts.fetch("tool", Silent()) / "package" / "tool" == tool
    assert len(registry.gets("/tool/-/tool-1.tgz")) == 1
    tool.write_bytes(content[:-1] + b"x")
    parts.fetch("tool", Silent())
    assert tool.read_bytes() == content


def test_a_part_that_breaks_off_is_continued(registry: Site) -> None:
    registry.cuts["/tool/-/tool-1.tgz"] = [1 << 17]
    parts.fetch("tool", Silent())
    assert registry.gets("/tool/-/tool-1.tgz") == [None, f"bytes={1 << 17}-"]


def test_a_part_that_is_another_one_is_not_unpacked(registry: Site, tmp_path: Path) -> None:
    registry.files["/tool/-/tool-1.tgz"] = bytes(len(registry.files["/tool/-/tool-1.tgz"]))
    with pytest.raises(SourceError, match="not the locked file"):
        parts.fetch("tool", Silent())
    assert not list(tmp_path.glob("cache/parts/tool*/*"))
