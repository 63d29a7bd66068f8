"""AndroidManifest.xml against what this app is: offline, one screen, nothing for others to open, nothing backed up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from converters.errors import PackageError
from edge.packaging.tools import Tools, run

ALLOWED_PERMISSIONS: frozenset[str] = frozenset()
"""None: files come through Android's own picker, models lie in the app's own folders, and it has no network."""
MIN_SDK, TARGET_SDK = 26, 35
ABI = "arm64-v8a"
_NAMESPACE = "{http://schemas.android.com/apk/res/android}"
_COMPONENTS = ("activity", "activity-alias", "service", "receiver", "provider")


def package_of(manifest: Path) -> str:
    """The application's id. Raises PackageError for a manifest that breaks a rule of this module, naming all."""
    try:
        root = ElementTree.parse(manifest).getroot()
    except ElementTree.ParseError as error:
        raise PackageError(f"{manifest} is no XML: {error}", hint="correct it") from error
    if wrong := list(_faults(root)):
        raise PackageError(
            f"{manifest.name}: {'; '.join(wrong)}", hint="correct edge/apps/android/AndroidManifest.xml"
        )
    return str(root.get("package"))


def _faults(root: ElementTree.Element) -> Iterator[str]:
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", root.get("package", "")):
        yield f"package {root.get('package')!r} is no application id"
    for element in root.iter():
        if element.tag.startswith("uses-permission") and _of(element, "name") not in ALLOWED_PERMISSIONS:
            yield f"it asks for {_of(element, 'name')}, which nothing here uses"
    sdk = root.find("uses-sdk")
    found = (_of(sdk, "minSdkVersion"), _of(sdk, "targetSdkVersion")) if sdk is not None else ("", "")
    if found != (str(MIN_SDK), str(TARGET_SDK)):
        yield f"minSdkVersion and targetSdkVersion are not {MIN_SDK} and {TARGET_SDK}"
    application = root.find("application")
    if application is None:
        yield "it has no application"
        return
    for name, wanted in (("allowBackup", "false"), ("extractNativeLibs", "true")):
        if _of(application, name) != wanted:
            yield f"android:{name} is not {wanted}"
    for name in ("debuggable", "usesCleartextTraffic", "sharedUserId"):
        if _of(application, name) not in ("", "false"):
            yield f"android:{name} is set"
    launchers = 0
    for element in application:
        if element.tag not in _COMPONENTS:
            continue
        is_launcher = _is_launcher(element)
        launchers += is_launcher
        if _of(element, "exported") == "":
            yield f"{_of(element, 'name')} does not say android:exported"
        elif _of(element, "exported") != "false" and not is_launcher:
            yield f"{_of(element, 'name')} is open to other apps"
    if launchers != 1:
        yield f"{launchers} launcher activities, not one"


def _of(element: ElementTree.Element, name: str) -> str:
    return element.get(_NAMESPACE + name, "")


def _is_launcher(element: ElementTree.Element) -> bool:
    """Whether it answers the launcher and nothing else."""
    filters = element.findall("intent-filter")
    names = [_of(child, "name") for each in filters for child in each]
    return sorted(names) == ["android.intent.action.MAIN", "android.intent.category.LAUNCHER"]


def check_badging(tools: Tools, apk: Path, package: str, version_name: str) -> None:
    """PackageError when what aapt reads out of the finished APK is not what went into it."""
    told = run([tools.aapt, "dump", "badging", apk], "aapt")
    wanted = {
        "package": rf"^package: name='{re.escape(package)}' .*versionName='{re.escape(version_name)}'",
        "minSdkVersion": rf"^sdkVersion:'{MIN_SDK}'$",
        "targetSdkVersion": rf"^targetSdkVersion:'{TARGET_SDK}'$",
        "launcher": r"^launchable-activity: name='dev\.edge\.app\.\w+'",
        "native code": rf"^native-code: '{ABI}'$",
    }
    wrong = [name for name, pattern in wanted.items() if not re.search(pattern, told, re.MULTILINE)]
    wrong += re.findall(r"^uses-permission: name='([^']+)'", told, re.MULTILINE)
    if wrong:
        raise PackageError(
            f"{apk.name} does not say what it was built from: {', '.join(wrong)}",
            hint="run the same command again",
        )
