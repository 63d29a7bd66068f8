"""How to set an artifact's engine up: by the profile of a target that it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.engine_settings import EngineSettings
from edge.targets import load_targets


def settings_for(artifact: Path, made_for: Sequence[str] = ()) -> EngineSettings:
    """The measured settings of the first target of `made_for` (a variant's) that is known here; for other people's
    artifacts those of the first target of their format. What no profile says is left to the engine file.

    Raises UnsupportedError when a target file is wrong.
    """
    known = load_targets()
    own = [known[name] for name in made_for if name in known]
    file_format = "onnx" if artifact.is_dir() else "gguf"  # what other people make
    same = [target for _, target in sorted(known.items()) if target.format == file_format]
    return next((target.profile.engine for target in own or same), EngineSettings())
