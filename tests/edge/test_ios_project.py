"""`--app ios`: what Linux can say of an Xcode project. Whether Xcode builds it, nobody has seen."""

from __future__ import annotations

import json
import plistlib
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_swift
from openstep_parser import OpenStepDecoder
from tree_sitter import Language, Node, Parser

from edge.cli import main
from edge.packaging import ios
from edge.progress import Silent
from tests import needs

MACH_O_64, DYLIB, LC_BUILD_VERSION, IOS = 0xFEEDFACF, 6, 0x32, 2
"""mach-o/loader.h"""


@pytest.fixture(scope="module")
def project(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ios")
    assert main(["convert", str(tiny("phi4")), "-t", "android", "--no-proof", "-o", str(place / "b")]) == 0
    ios.package(place / "b", place / "app", None, Silent())
    return place / "app"


@pytest.fixture(scope="module")
def objects(project: Path) -> dict[str, Any]:
    file = project / "Chat.xcodeproj" / "project.pbxproj"
    data = OpenStepDecoder.ParseFromFile(file.open(encoding="utf-8"))
    assert data["rootObject"] in data["objects"]
    found: dict[str, Any] = data["objects"]
    return found


def test_every_reference_in_the_project_leads_to_an_object_that_is_used(objects: dict[str, Any]) -> None:
    def strings(value: Any) -> Iterator[str]:
        for each in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        ):
            yield from [each] if isinstance(each, str) else strings(each)

    named = {s for value in objects.values() for s in strings(value) if re.fullmatch("[0-9A-F]{24}", s)}
    roots = {key for key, value in objects.items() if value["isa"] == "PBXProject"}
    assert named | roots == set(objects)


def test_every_file_of_the_project_exists_and_no_path_is_absolute(
    project: Path, objects: dict[str, Any]
) -> None:
    found = []

    def walk(key: str, folder: Path) -> None:
        entry = objects[key]
        assert entry["sourceTree"] in ("<group>", "BUILT_PRODUCTS_DIR")
        path = folder / entry.get("path", "")
        assert not Path(entry.get("path", "")).is_absolute()
        if entry["isa"] == "PBXGroup":
            for child in entry["children"]:
                walk(child, path)
        elif entry["sourceTree"] == "<group>":
            found.append(path)

    (main_group,) = [value["mainGroup"] for value in objects.values() if value["isa"] == "PBXProject"]
    walk(main_group, project)
    assert [path for path in found if not path.exists()] == []
    assert {project / "licences", project / "Chat" / "PrivacyInfo.xcprivacy"} <= set(found)
    sources = {path for path in found if path.suffix == ".swift"}
    assert sources == set((project / "Chat").glob("*.swift"))
    built = {
        objects[value["fileRef"]]["path"] for value in objects.values() if value["isa"] == "PBXBuildFile"
    }
    assert {path.name for path in sources} | {"licences", "PrivacyInfo.xcprivacy", "model.gguf"} <= built
    for value in objects.values():
        for name, setting in value.get("buildSettings", {}).items():
            if name in ("INFOPLIST_FILE", "SWIFT_OBJC_BRIDGING_HEADER"):
                assert (project / setting).is_file()
            assert not setting.startswith("/")


def test_the_property_lists_say_what_is_there(project: Path) -> None:
    info = plistlib.loads((project / "Chat" / "Info.plist").read_bytes())
    assert info["CFBundlePackageType"] == "APPL"
    framework = project / "Frameworks" / ios.FRAMEWORK
    listed = plistlib.loads((framework / "Info.plist").read_bytes())["AvailableLibraries"]
    for library in listed:
        folder = framework / library["LibraryIdentifier"] / library["LibraryPath"]
        assert (folder / "rnllama").is_file()
        assert (folder / "Headers" / "llama.h").is_file()
    assert {library["SupportedPlatform"] for library in listed} == {"ios"}
    assert {path.name for path in framework.iterdir()} == {
        "Info.plist",
        *(each["LibraryIdentifier"] for each in listed),
    }


def test_what_apple_asks_reasons_for_is_in_the_privacy_manifest(project: Path) -> None:
    """The functions of Apple's list that the sources and llama.cpp use, by their names."""
    manifest = plistlib.loads((project / "Chat" / "PrivacyInfo.xcprivacy").read_bytes())
    assert manifest["NSPrivacyTracking"] is False
    assert manifest["NSPrivacyCollectedDataTypes"] == []
    used = {entry["NSPrivacyAccessedAPIType"] for entry in manifest["NSPrivacyAccessedAPITypes"]}
    text = "".join(file.read_text() for file in (project / "Chat").glob("*.swift")).encode()
    library = (project / "Frameworks" / ios.FRAMEWORK / "ios-arm64/rnllama.framework/rnllama").read_bytes()
    names = {
        "UserDefaults": rb"AppStorage|UserDefaults",
        "FileTimestamp": rb"\0_(?:[fl]?stat|fstatat|getattrlist)\0|modificationDate",
        "SystemBootTime": rb"\0_mach_absolute_time\0|systemUptime",
        "DiskSpace": rb"\0_f?statv?fs\0|volumeAvailableCapacity",
        "ActiveKeyboards": rb"activeInputModes",
    }
    found = {name for name, pattern in names.items() if re.search(pattern, text + library)}
    assert {f"NSPrivacyAccessedAPICategory{name}" for name in found} == used


def test_the_bridging_header_compiles_as_c_with_the_frameworks_headers(project: Path, tmp_path: Path) -> None:
    needs.programs(gcc="gcc")
    headers = project / "Frameworks" / ios.FRAMEWORK / "ios-arm64" / "rnllama.framework" / "Headers"
    (tmp_path / "rnllama").symlink_to(headers)
    header = project / "Chat" / "Bridging-Header.h"
    command = ["gcc", "-fsyntax-only", "-Wno-deprecated", "-x", "c", "-I", str(tmp_path), str(header)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_framework_is_a_library_for_the_projects_oldest_ios(
    project: Path, objects: dict[str, Any]
) -> None:
    folder = project / "Frameworks" / ios.FRAMEWORK / "ios-arm64" / "rnllama.framework"
    data = (folder / "rnllama").read_bytes()
    magic, _, _, kind, count, _ = struct.unpack_from("<6I", data)
    assert (magic, kind) == (MACH_O_64, DYLIB)
    at, oldest = 32, None
    for _ in range(count):
        command, length = struct.unpack_from("<2I", data, at)
        if command == LC_BUILD_VERSION:
            platform, oldest = struct.unpack_from("<2I", data, at + 8)
            assert platform == IOS
        at += length
    settings = [value.get("buildSettings", {}) for value in objects.values()]
    targets = {s["IPHONEOS_DEPLOYMENT_TARGET"] for s in settings if "IPHONEOS_DEPLOYMENT_TARGET" in s}
    assert oldest is not None
    assert all(oldest >> 16 <= int(target.partition(".")[0]) for target in targets)


def swift(project: Path) -> Iterator[tuple[Path, Node]]:
    parser = Parser(Language(tree_sitter_swift.language()))
    for file in sorted((project / "Chat").glob("*.swift")):
        yield file, parser.parse(file.read_bytes()).root_node


def test_the_swift_sources_parse(project: Path) -> None:
    broken = [file.name for file, root in swift(project) if root.has_error]
    assert broken == []


def test_the_framework_exports_every_function_that_the_sources_call(project: Path) -> None:
    called = set()
    for _, root in swift(project):
        called |= set(re.findall(r"\b(llama_\w+)\(", (root.text or b"").decode()))
    assert "llama_decode" in called
    library = project / "Frameworks" / ios.FRAMEWORK / "ios-arm64" / "rnllama.framework"
    declared = (library / "Headers" / "llama.h").read_text()
    called -= set(re.findall(r"typedef \w+ (llama_\w+);", declared))
    exported = (library / "rnllama").read_bytes()
    assert [n for n in called if not re.search(rf"\b{n}\b", declared)] == []
    assert [n for n in called if b"_" + n.encode() + b"\0" not in exported] == []


def test_the_model_file_is_described_as_the_sources_read_it(project: Path) -> None:
    described = json.loads((project / "Model" / "model.json").read_text())
    source = (project / "Chat" / "Model.swift").read_text()
    struct = source[source.index("struct Model:") : source.index("var path")]
    turns, rest = struct.split("    }\n", 1)
    assert set(re.findall(r"let (\w+):", rest)) <= set(described)
    assert set(re.findall(r"let (\w+):", turns)) <= set(described["turns"])
    assert (project / "Model" / described["file"]).stat().st_size == described["size"]


def test_it_says_that_nobody_has_run_it(project: Path) -> None:
    assert "untested" in (project / "README.md").read_text().splitlines()[0]
    assert "untested" in ios.UNTESTED


def test_two_runs_write_the_same_bytes(project: Path, tmp_path: Path) -> None:
    ios.package(project.parent / "b", tmp_path / "again", None, Silent())
    listed = [(folder / "edge-app.json").read_bytes() for folder in (project, tmp_path / "again")]
    assert listed[0] == listed[1]
