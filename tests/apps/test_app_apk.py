"""The signed APK as androguard reads it: a reader that shares nothing with the tools that made it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from androguard.core.apk import APK
from androguard.core.dex import DEX
from loguru import logger

from edge.packaging import manifest_lint, native, signing, tools
from tests.apps import signed_apk

NATIVE = 0x100
"""ACC_NATIVE of the DEX format (source.android.com/docs/core/runtime/dex-format)."""
ANDROID = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def file(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    logger.disable("androguard")
    return signed_apk.build(tiny_gguf, tmp_path_factory.mktemp("apk"))


@pytest.fixture(scope="module")
def apk(file: Path) -> Any:
    return APK(str(file))


def test_it_is_the_app(apk: Any) -> None:
    assert apk.is_valid_APK()
    assert apk.get_package() == "dev.edge.app"
    assert apk.get_main_activities() == {".MainActivity"}
    sdk = int(apk.get_min_sdk_version()), int(apk.get_target_sdk_version())
    assert sdk == (manifest_lint.MIN_SDK, manifest_lint.TARGET_SDK) == (26, 35)


def test_it_asks_for_nothing_and_opens_nothing(apk: Any) -> None:
    assert set(apk.get_permissions()) == manifest_lint.ALLOWED_PERMISSIONS == set()
    assert not apk.get_declared_permissions()
    assert [apk.get_services(), apk.get_receivers(), apk.get_providers()] == [[], [], []]
    assert apk.get_activities() == ["dev.edge.app.MainActivity"]
    (application,) = apk.get_android_manifest_xml().findall("application")
    assert application.get(f"{ANDROID}allowBackup") == "false"
    assert application.get(f"{ANDROID}debuggable") is None


def test_both_signatures_are_the_certificates(apk: Any, file: Path) -> None:
    assert (apk.is_signed_v2(), apk.is_signed_v3()) == (True, True)
    expected = signing.verify(tools.find(), file)
    for certificates in (apk.get_certificates_v2(), apk.get_certificates_v3()):
        assert [c.sha256_fingerprint.replace(" ", "").lower() for c in certificates] == [expected]


def test_its_code_is_parsed(apk: Any) -> None:
    (data,) = apk.get_all_dex()
    dex = DEX(data)
    names = set(dex.get_classes_names())
    assert {f"Ldev/edge/{name};" for name in ("app/MainActivity", "core/Controller", "core/Llama")} <= names


def test_every_native_method_has_its_function(apk: Any) -> None:
    methods = DEX(next(apk.get_all_dex())).get_encoded_methods()
    declared = {method.get_name() for method in methods if method.get_access_flags() & NATIVE}
    library = apk.get_file(f"lib/{manifest_lint.ABI}/{native.NAME}")
    defined = {name.decode() for name in re.findall(rb"Java_dev_edge_core_Llama_(\w+)", library)}
    assert declared == defined
    assert "decode" in declared


def test_it_has_the_libraries_of_one_kind_of_device(apk: Any) -> None:
    names = [name for name in apk.get_files() if name.startswith("lib/")]
    assert {name.split("/")[1] for name in names} == {manifest_lint.ABI}
    assert f"lib/{manifest_lint.ABI}/{native.NAME}" in names
    assert all(apk.get_file(name)[:4] == b"\x7fELF" for name in names)
