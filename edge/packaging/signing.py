"""Keys that sign an app: the person's own keystore, or a debug key that is made once on this machine.

Android takes an update only when it is signed with the key of the first install, so the debug key is kept. Passwords
reach the tools through files and the environment, never through a command line, which every user can see.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from converters.errors import MachineError, PackageError
from edge.packaging.tools import Tools, run

PASSWORD = "EDGE_KEYSTORE_PASSWORD"
"""The environment variable that holds the password of `--keystore`."""
_DEBUG_PASSWORD = "debug-key-of-this-machine"
_DEBUG_ALIAS = "edge-debug"
_ENGLISH = "-J-Duser.language=en"


@dataclass(frozen=True)
class Key:
    """A keystore, an alias in it and its password. `debug`: the one of this machine, which no store takes."""

    keystore: Path
    alias: str
    password: str
    debug: bool = False


def own_key(tools: Tools, keystore: Path, alias: str | None, password_file: Path | None) -> Key:
    """The person's key. Raises PackageError for a missing file, a wrong password, an alias that is not there."""
    hint = f"--password-file FILE, or the environment variable {PASSWORD}"
    if not keystore.is_file():
        raise PackageError(
            f"there is no keystore {keystore}", hint="keytool -genkeypair -keyalg RSA -keystore FILE"
        )
    try:
        text = password_file.read_text(encoding="utf-8") if password_file else os.environ.get(PASSWORD, "")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise PackageError(f"cannot read {password_file}: {cause}", hint=hint) from error
    password = text.split("\n")[0].rstrip("\r")
    if not password:
        raise PackageError(f"the password of {keystore} is not given", hint=hint)
    listing = _list(tools, keystore, password)
    aliases = re.findall(r"^(\S.*?), .*PrivateKeyEntry", listing, re.MULTILINE)
    chosen = alias or (aliases[0] if len(aliases) == 1 else None)
    if chosen is None or chosen.lower() not in aliases:
        there = ", ".join(aliases) or "no private key"
        what = f"no key '{alias}'" if alias else "not one key"
        raise PackageError(f"{keystore} holds {what}: it has {there}", hint="--key-alias NAME")
    return Key(keystore, chosen, password)


def _list(tools: Tools, keystore: Path, password: str) -> str:
    command = [tools.keytool, _ENGLISH, "-list", "-keystore", str(keystore), "-storepass:env", PASSWORD]
    try:
        return run(command, "keytool", env={PASSWORD: password})
    except MachineError as error:
        if "password was incorrect" in error.cause:
            raise PackageError(
                f"the password of {keystore} is wrong", hint="give the keystore's own"
            ) from None
        raise PackageError(f"{keystore} cannot be read: {error.cause}", hint="is it a keystore?") from None


def debug_key(tools: Tools) -> Key:
    """This machine's debug key (RSA, readable by its user alone), made at the first call."""
    folder = Path(platformdirs.user_data_dir("edge", appauthor=False)) / "keys"
    key = Key(folder / "debug.keystore", _DEBUG_ALIAS, _DEBUG_PASSWORD, debug=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        with FileLock(folder / "debug.keystore.lock"):
            if not key.keystore.exists():
                make(tools, key)
    except OSError as error:
        raise MachineError(
            f"the debug key cannot be kept in {folder}: {error.strerror}",
            hint="set XDG_DATA_HOME, or give --keystore",
        ) from error
    return key


def make(tools: Tools, key: Key) -> None:
    part = key.keystore.with_name(f".{key.keystore.name}.part")
    part.unlink(missing_ok=True)
    run(
        [
            *(tools.keytool, _ENGLISH, "-genkeypair", "-keystore", part, "-storetype", "PKCS12"),
            *("-storepass:env", PASSWORD, "-alias", key.alias, "-keyalg", "RSA", "-keysize", "3072"),
            *("-validity", "10950", "-dname", "CN=edge debug key"),
        ],
        "keytool",
        env={PASSWORD: key.password},
    )
    part.chmod(0o600)
    part.rename(key.keystore)


def sign(tools: Tools, key: Key, unsigned: Path, signed: Path, min_sdk: int) -> None:
    """Write `signed` with the APK signature schemes 2 and 3; RSA with PKCS#1 padding gives the same bytes each time."""
    run(
        [
            *(tools.apksigner, "sign", "--ks", key.keystore, "--ks-key-alias", key.alias),
            *("--ks-pass", f"env:{PASSWORD}", "--min-sdk-version", str(min_sdk)),
            *(
                "--v1-signing-enabled",
                "false",
                "--v2-signing-enabled",
                "true",
                "--v3-signing-enabled",
                "true",
            ),
            *("--v4-signing-enabled", "false", "--in", unsigned, "--out", signed),
        ],
        "apksigner",
        env={PASSWORD: key.password},
    )


def verify(tools: Tools, apk: Path) -> str:
    """The SHA-256 of the certificate that signed it, under schemes 2 and 3. MachineError when apksigner objects."""
    told = run([tools.apksigner, "verify", "--verbose", "--print-certs", apk], "apksigner")
    schemes = all(re.search(rf"Verified using v{n} scheme[^:]*: true", told) for n in (2, 3))
    certificate = re.search(r"certificate SHA-256 digest: ([0-9a-f]{64})", told)
    if not schemes or certificate is None:
        raise PackageError(f"{apk.name} is not signed as it should be", hint="run the same command again")
    return certificate[1]
