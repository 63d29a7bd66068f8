"""`edge package`: what is missing, what is refused, what a check finds."""

from __future__ import annotations

import errno
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from unittest import mock

from filelock import FileLock
from PIL import Image

from edge.packaging import (
    android,
    apk,
    archives,
    dex,
    elf,
    lock_parts,
    manifest_lint,
    native,
    parts,
    phone_model,
    publishing,
    signing,
    tools,
)
from edge.packaging.apk import Entry
from edge.packaging.identity import Identity
from tests import needs
from tests.messages import World, case

CONVERT = ("--context", "64", "--no-proof", "-o", "bundle")


def nothing(_: int) -> None:
    pass


def bundle(world: World, target: str = "android") -> Path:
    if not (world.path / "bundle").exists():
        world.quietly("convert", world.tiny("phi4-mini"), "-t", target, *CONVERT)
    return world.path / "bundle"


def tgz(world: World, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(world.path / "part.tgz", "w:gz") as archive:
        for member in members:
            member.size = 4 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"text"))
    return world.path / "part.tgz"


def unpack(world: World, archive: Path, *keep: str) -> None:
    world.call(archives.unpack, archive, world.path / f"out{len(list(world.path.iterdir()))}", keep, nothing)


@case
def tools_that_are_missing(world: World) -> None:
    bundle(world)
    with (
        mock.patch.dict(os.environ, {"PATH": str(world.path)}),
        mock.patch.object(tools, "FRAMEWORK", Path("no.apk")),
    ):
        world.edge("package", "bundle")


@case
def a_jdk_that_is_too_new_or_has_no_headers(world: World) -> None:
    needs.android_tools()
    folder = world.path / "jdk" / "bin"
    folder.mkdir(parents=True)
    (folder / "javac").write_text("#!/bin/sh\necho javac 21.0.1\n")
    (folder / "javac").chmod(0o755)
    with mock.patch.dict(os.environ, {"PATH": f"{folder}:{os.environ['PATH']}"}):
        world.call(tools.find)
        (folder.parent / "include").mkdir()
        (folder.parent / "include" / "jni.h").touch()
        world.call(tools.find)


@case
def a_tool_that_fails_or_does_not_start(world: World) -> None:
    world.call(tools.run, ["sh", "-c", "echo Error: no such thing; exit 3"], "aapt")
    world.call(tools.run, [world.path / "aapt"], "aapt")


@case
def bundles_that_are_not_for_the_app(world: World) -> None:
    needs.android_tools()
    bundle(world, "cpu")
    world.edge("package", "bundle")
    world.edge("package", "bundle", "--variant", "gguf-int4")
    world.edge("package", "nowhere")


@case
def a_gguf_that_is_missing_or_altered(world: World) -> None:
    needs.android_tools()
    gguf = next(bundle(world).glob("*.gguf"))
    world.edge("package", gguf.relative_to(world.path), "--variant", "gguf-int4")
    data = bytearray(gguf.read_bytes())
    data[-1] ^= 1
    gguf.write_bytes(data)
    world.edge("package", "bundle")
    (world.path / "cut.gguf").write_bytes(data[:2000])
    world.edge("package", "cut.gguf")
    gguf.unlink()
    world.edge("package", "bundle")


@case
def a_gguf_without_its_numbers(world: World) -> None:
    needs.android_tools()
    gguf = next(bundle(world).glob("*.gguf"))
    data = gguf.read_bytes()
    (world.path / "other.gguf").write_bytes(data.replace(b"phi3.block_count", b"phi3.block_cuont"))
    world.edge("package", "other.gguf")
    with mock.patch.object(phone_model.Gguf, "open", side_effect=phone_model.Gguf.open) as opened:
        sound = phone_model.Gguf.open(gguf)
        opened.side_effect = None
        opened.return_value = sound
        sound.metadata = {**sound.metadata, "phi3.attention.head_count_kv": [1, 2]}
        world.edge("package", gguf.relative_to(world.path))


@case
def keystores(world: World) -> None:
    needs.android_tools()
    bundle(world)
    found = tools.find()
    words = ("package", "bundle", "--keystore", "my.keystore")
    world.edge(*words)
    key = signing.Key(world.path / "my.keystore", "edge-debug", "secret-password")
    signing.make(found, key)
    world.edge(*words)
    world.edge(*words, "--password-file", "nowhere")
    (world.path / "password").write_text("another-password\n")
    world.edge(*words, "--password-file", "password")
    (world.path / "password").write_text("secret-password\n")
    world.edge(*words, "--password-file", "password", "--key-alias", "mine")
    (world.path / "my.keystore").write_text("no keystore")
    world.edge(*words, "--password-file", "password")
    (world.path / "data").touch()
    with mock.patch.object(signing.platformdirs, "user_data_dir", return_value=str(world.path / "data")):
        world.call(signing.debug_key, found)


@case
def places_that_cannot_be_written(world: World) -> None:
    def publish(output: Path) -> None:
        with publishing.work_folder(output) as folder:
            (folder / output.name).touch()

    (world.path / "folder").mkdir()
    (world.path / "file").touch()
    world.call(publish, Path("folder"))
    world.call(publish, Path("file/app.apk"))
    with FileLock(world.path / ".app.apk.edge-lock"):
        world.call(publish, Path("app.apk"))
    with mock.patch.object(publishing, "sync_tree", side_effect=OSError(errno.ENOSPC, "full")):
        world.call(publish, Path("app.apk"))


@case
def an_apk_over_its_limit(world: World) -> None:
    with mock.patch.object(apk, "MAX_BYTES", 3):
        world.call(apk.write, world.path / "a.apk", [Entry("assets/model.gguf", b"GGUF")], nothing)


@case
def manifests_that_ask_for_too_much(world: World) -> None:
    good = (android.APP / "AndroidManifest.xml").read_text()
    manifest = world.path / "AndroidManifest.xml"
    for old, new in (
        ("<?xml", "<xml"),
        ("<uses-sdk", '<uses-permission android:name="android.permission.INTERNET"/><uses-sdk'),
        ('package="dev.edge.app"', 'package="App"'),
        ('android:targetSdkVersion="35"', 'android:targetSdkVersion="30"'),
        ('android:allowBackup="false"', 'android:debuggable="true"'),
        (
            "</activity>",
            '</activity><service android:name=".S" android:exported="true"/><receiver android:name=".R"/>',
        ),
        ("android.intent.category.LAUNCHER", "android.intent.category.DEFAULT"),
        ("application", "app"),
    ):
        manifest.write_text(good.replace(old, new))
        world.call(manifest_lint.package_of, manifest)


@case
def a_library_that_no_phone_loads(world: World) -> None:
    file = world.path / "lib.so"
    file.write_bytes(b"no library")
    world.call(elf.check, file)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    strings = b"\0libOpenCL.so\0".ljust(16, b"\0")
    dynamic = struct.pack("<12Q", 1, 1, 5, 512, 10, 16, 22, 0, 0, 0, 0, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 1024, 1024, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 6, 256, 256, 256, len(dynamic), len(dynamic), 8)
    segments += struct.pack("<IIQQQQQQ", 0x6474E551, 7, 0, 0, 0, 0, 0, 16)
    file.write_bytes(
        ((header + segments).ljust(256, b"\0") + dynamic).ljust(512, b"\0") + strings.ljust(512, b"\0")
    )
    world.call(elf.check, file)


@case
def identities_that_are_refused(world: World) -> None:
    words = ("package", "bundle")
    world.edge(*words, "--id", "chat")
    world.edge(*words, "--title", " ")
    world.edge(*words, "--app-version", "1.2000")
    Image.new("RGB", (200, 100)).save(world.path / "wide.png")
    (world.path / "text.png").write_text("a picture")
    data = (world.path / "wide.png").read_bytes()
    (world.path / "cut.png").write_bytes(data[: len(data) // 2])
    for name in ("wide.png", "text.png", "cut.png", "nowhere.png"):
        world.edge(*words, "--icon", name)
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 1000):
        world.edge(*words, "--icon", "wide.png")
    world.edge(*words, "--app", "web", "--id", "com.example.chat")
    world.edge("push", "bundle", "--app", "chat")


@case
def sources_that_are_not_there(world: World) -> None:
    needs.android_tools()
    world.call(dex.build, tools.find(), world.path, world.path / "stubs", (), world.path)


@case
def parts_that_are_not_what_they_should_be(world: World) -> None:
    (world.path / "parts.lock").write_text("[[part]]\nname = 'zig'\n")
    world.call(parts.read, world.path / "parts.lock")
    with mock.patch("platform.machine", return_value="riscv64"):
        world.call(parts.fetch, "zig", mock.Mock())


@case
def parts_that_their_registry_has_not(world: World) -> None:
    known = {(part.name, part.machine): part for part in parts.read()}
    with mock.patch.object(lock_parts.index, "listing", return_value=[]):
        world.call(lock_parts.resolve, known["zig", "x86_64"], mock.Mock())
    told = b'{"dist": {"tarball": "https://registry.npmjs.org/a/-/a-1.tgz", "integrity": "sha512-other"}}'
    (world.path / "a-1.tgz").touch()
    with (
        mock.patch.object(lock_parts.web, "get_page", return_value=(told, "application/json")),
        mock.patch.object(lock_parts.cache, "place", return_value=world.path / "a-1.tgz"),
        mock.patch.object(lock_parts.download, "fetch", return_value="0" * 64),
    ):
        world.call(lock_parts.resolve, known["dx", None], mock.Mock())


@case
def archives_that_are_refused(world: World) -> None:
    link = tarfile.TarInfo("package/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    unpack(world, tgz(world, tarfile.TarInfo("package/../../evil")), "*")
    unpack(world, tgz(world, link), "*")
    unpack(world, tgz(world, tarfile.TarInfo("package/a"), tarfile.TarInfo("package/a")), "*")
    unpack(world, tgz(world, tarfile.TarInfo("package/a")), "package/*", "package/lib*.so")
    with mock.patch.object(archives, "MAX_BYTES", 3):
        unpack(world, tgz(world, tarfile.TarInfo("package/a")), "*")
    with mock.patch.object(archives, "MAX_MEMBERS", 0):
        unpack(world, tgz(world, tarfile.TarInfo("a"), tarfile.TarInfo("b")), "*")
    (world.path / "part.whl").write_text("no ZIP")
    unpack(world, world.path / "part.whl", "*")


@case
def an_apk_that_does_not_say_what_it_is(world: World) -> None:
    needs.android_tools()
    found = tools.find()
    entries = apk.compile_resources(found, android.MANIFEST, android.APP / "res", world.path, Identity())
    apk.write(world.path / "a.apk", entries, nothing)
    world.call(manifest_lint.check_badging, found, world.path / "a.apk", "dev.edge.app", "2.0")
    key = signing.Key(world.path / "key", "edge-debug", "secret-password")
    signing.make(found, key)
    signed = world.path / "signed.apk"
    command = (found.apksigner, "sign", "--ks", key.keystore, "--ks-pass", "pass:secret-password")
    tools.run([*command, "--v3-signing-enabled", "false", "--out", signed, world.path / "a.apk"], "apksigner")
    world.call(signing.verify, found, signed)
    with zipfile.ZipFile(world.path / "b.apk", "w") as archive:
        archive.writestr("xyz", b"stored, at an odd offset")
    world.call(apk.align_check, found, world.path / "b.apk")


@case
def no_jdk_for_the_library(world: World) -> None:
    with mock.patch("shutil.which", return_value=None):
        world.call(native.jni_headers)
