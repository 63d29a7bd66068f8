"""Who an app is to a phone: application id, name under the icon, version, icon."""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, UnidentifiedImageError

from converters.errors import PackageError

TITLE_LENGTH = 50
"""Characters. Launchers show about a dozen; Google Play takes 30."""
ICON_PIXELS = 192
"""The least side of an icon: 48 dp on a screen of 640 dpi."""
_FOREGROUND, _VISIBLE = 432, 288
"""An adaptive icon's layer is 108 dp, of which launchers show the inner 72 dp: pixels at 640 dpi
(https://developer.android.com/develop/ui/views/launch/icon_design_adaptive)."""
_VERSION_CODE = 2_100_000_000
"""The largest that Google Play takes (https://developer.android.com/studio/publish/versioning)."""
_WORD = r"[a-zA-Z][a-zA-Z0-9_]*"


@dataclass(frozen=True)
class Identity:
    """None: what edge's own app has. `version`: X.Y.Z, each below 1000."""

    id: str | None = None
    title: str | None = None
    version: str | None = None
    icon: Path | None = None

    def check(self) -> None:
        """Raises PackageError for what Android, or a store, would refuse, and an icon that is no square picture of at
        least ICON_PIXELS."""
        if self.id is not None and not re.fullmatch(rf"{_WORD}(\.{_WORD})+", self.id):
            raise PackageError(
                f"'{self.id}' is no application id", hint="two or more words with dots: --id com.example.chat"
            )
        if self.title is not None:
            printable = self.title.isprintable() and self.title.strip()
            if not printable or len(self.title) > TITLE_LENGTH:
                raise PackageError(
                    f"{self.title!r} is no name for an app",
                    hint=f"1 to {TITLE_LENGTH} printable characters: --title 'My Chat'",
                )
        self.version_code()
        if self.icon is not None:
            _read(self.icon)

    def version_name(self) -> str:
        return self.version or _own_version()

    def version_code(self) -> int:
        """What Android compares: 1.2.3 is 1002003."""
        name = self.version_name()
        numbers = [int(word) for word in re.findall(r"\d{1,9}", name)][:3]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        code = 1_000_000 * major + 1000 * minor + patch
        whole = self.version is None or re.fullmatch(r"\d{1,4}(\.\d{1,3}){0,2}", name)
        if not whole or not 0 < code <= _VERSION_CODE:
            raise PackageError(
                f"'{name}' is no version that Android can compare",
                hint="up to three numbers, the last two below 1000, not all zero: --app-version 1.2.3",
            )
        return code

    def resources(self, own: Path, work: Path) -> Path:
        """The folder of Android resources: `own` with this title and icon put in, in `work`."""
        folder = work / "res"
        shutil.copytree(own, folder)
        if self.title is not None:
            _replace(folder / "values" / "strings.xml", "app_name", _quoted(self.title))
        if self.icon is not None:
            picture = _read(self.icon)
            (folder / "drawable" / "ic_foreground.xml").unlink()
            (folder / "drawable-xxxhdpi").mkdir()
            inner = picture.resize((_VISIBLE, _VISIBLE), Image.Resampling.LANCZOS)
            layer = Image.new("RGBA", (_FOREGROUND, _FOREGROUND))
            layer.paste(inner, ((_FOREGROUND - _VISIBLE) // 2,) * 2)
            layer.save(folder / "drawable-xxxhdpi" / "ic_foreground.png", optimize=True)
            _replace(folder / "values" / "colors.xml", "icon_background", _corner(inner))
        return folder


EDGE = Identity()
"""edge's own app."""


def _own_version() -> str:
    try:
        return version("edge")
    except PackageNotFoundError:
        return "0.0.1"


def _read(icon: Path) -> Image.Image:
    hint = f"a square PNG of {ICON_PIXELS} pixels or more"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(icon) as opened:
                picture = opened.convert("RGBA")
    except UnidentifiedImageError:
        raise PackageError(f"{icon} is no picture", hint=hint) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PackageError(f"{icon} has too many pixels", hint=hint) from None
    except (OSError, SyntaxError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
        raise PackageError(f"cannot read {icon}: {cause}", hint=hint) from error
    if picture.width != picture.height or picture.width < ICON_PIXELS:
        raise PackageError(f"{icon} has {picture.width} x {picture.height} pixels", hint=hint)
    return picture


def _corner(picture: Image.Image) -> str:
    """What goes on behind the icon where a launcher moves it: its corner's colour, white where that is transparent."""
    red, green, blue, alpha = picture.convert("RGBA").tobytes()[:4]
    return f"#{red:02X}{green:02X}{blue:02X}" if alpha == 255 else "#FFFFFF"


def _quoted(text: str) -> str:
    """A text as aapt reads a string resource: within quotes nothing but these two characters means anything."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return escape(f'"{inner}"')


def _replace(file: Path, name: str, value: str) -> None:
    text, count = re.subn(
        rf'(name="{name}">)[^<]*', lambda found: found[1] + value, file.read_text(encoding="utf-8")
    )
    if count != 1:
        raise ValueError(f"{file} has {count} values {name}")
    file.write_text(text, encoding="utf-8")
