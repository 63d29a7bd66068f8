"""From a word on the command line to the artifacts that it names."""

from __future__ import annotations

from pathlib import Path

from converters.errors import BundleError, UnsupportedError
from edge import bundle, runtimes
from edge.chat.locate import Chosen, find_model, names


def artifacts(word: str) -> list[Chosen]:
    """Every variant of a bundle that an engine here runs, or the .gguf file or genai folder itself."""
    model = find_model(word)
    if model is None:
        known = ", ".join(names())
        raise BundleError(
            f"'{word}' is no bundle, GGUF file or genai folder",
            hint=f"under ./bundles: {known}" if known else "edge convert makes a bundle",
        )
    if not bundle.is_bundle(model):
        return [Chosen(model, model.name, None)]
    made = bundle.load(model)
    bundle.refuse_encoder(made)
    label = model.resolve().name
    found = [
        Chosen(v.path, f"{label}/{v.name}", v.context_length)
        for v in made.variants
        if runtimes.accepts(v.path)
    ]
    if not found:
        variants = ", ".join(v.name for v in made.variants)
        raise UnsupportedError(f"no engine here runs a variant of {model} ({variants})", hint="edge doctor")
    return found


def reference_artifact(word: str) -> Chosen | None:
    """The artifact that `word` is the path of (of a bundle its first variant); None when it is none."""
    path = Path(word)
    return artifacts(word)[0] if bundle.is_bundle(path) or runtimes.accepts(path) else None
