"""Which model to chat with: a path, a name under ./bundles, or the bundle made last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converters.adapter_files import adapter_file
from converters.errors import BundleError, UnsupportedError
from edge import bundle, runtimes

BUNDLES = Path("bundles")
_MAKE = "edge convert smollm2-135m-instruct --target cpu"


@dataclass(frozen=True)
class Chosen:
    """An artifact to open. `label` names it for people; the rest is the bundle's word, None for others'.

    sha256: of the artifact where it is one file. targets: what the variant was made for.
    """

    path: Path
    label: str
    context_length: int | None
    sha256: str | None = None
    targets: tuple[str, ...] = ()
    adapters: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    """File and SHA-256 of each adapter, by name."""

    def check_adapter(self, name: str) -> None:
        """BundleError when the adapter's file is not the one that was proven with this very model."""
        file, expected = self.adapters.get(name, (None, ""))
        if file is not None and file.is_file() and bundle.sha256(file) != expected:
            raise BundleError(
                f"adapter '{name}' is not the one that {self.label} was made with",
                hint="edge convert --adapter DIR makes a bundle with it",
            )


def find_model(word: str) -> Path | None:
    """The model that `word` names: an existing bundle, genai folder or GGUF, or a name under ./bundles."""
    try:
        named = [Path(word)] + ([BUNDLES / word] if word and Path(word).name == word else [])
        return next((p for p in named if bundle.is_bundle(p) or runtimes.accepts(p)), None)
    except (OSError, ValueError):  # a whole question is no file name: too long, or with a NUL
        return None


def latest() -> Path:
    """The bundle under ./bundles whose manifest is newest. Raises BundleError when there is none."""
    manifests = sorted(BUNDLES.glob(f"*/{bundle.MANIFEST}"), key=lambda p: (p.stat().st_mtime_ns, p))
    if not manifests:
        raise BundleError("no model is named and ./bundles holds no bundle", hint=_MAKE)
    return manifests[-1].parent


def choose(model: Path, variant: str | None) -> Chosen:
    """The artifact of `model`; in a bundle, the variant of that name, or the first one that has an engine."""
    if not bundle.is_bundle(model):
        if variant is not None:
            raise BundleError(f"{model} is no bundle: it has no variants", hint="leave --variant out")
        return Chosen(model, model.name, None)
    made = bundle.load(model)
    bundle.refuse_encoder(made)
    runnable = [v for v in made.variants if runtimes.accepts(v.path)]
    if variant is not None:
        runnable = [v for v in runnable if v.name == variant]
    if not runnable:
        names = ", ".join(v.name for v in made.variants) or "none"
        if variant is not None:
            raise BundleError(f"{model} has no variant '{variant}' that runs here", hint=f"it has: {names}")
        raise UnsupportedError(f"no engine here runs a variant of {model} ({names})", hint="edge doctor")
    first = runnable[0]
    label = f"{model.resolve().name}/{first.name}"
    entry = made.manifest["files"].get(first.path.relative_to(made.directory).as_posix())
    sha256 = entry["sha256"] if entry else None
    adapters = _adapters(made, first.path)
    return Chosen(first.path, label, first.context_length, sha256, first.targets, adapters)


def _adapters(made: bundle.Bundle, artifact: Path) -> dict[str, tuple[Path, str]]:
    files = {name: adapter_file(artifact, name) for name in made.adapters}
    listed = made.manifest["files"]
    places = {name: file.relative_to(made.directory).as_posix() for name, file in files.items()}
    return {
        name: (files[name], str(listed[place]["sha256"])) for name, place in places.items() if place in listed
    }


def names() -> list[str]:
    """Names of the bundles under ./bundles."""
    return sorted(p.parent.name for p in BUNDLES.glob(f"*/{bundle.MANIFEST}"))
