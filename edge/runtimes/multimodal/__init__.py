"""onnxruntime by itself: runs the folders of models that take images and speech.

Why not onnxruntime-genai, whose format the folders have: its pipeline takes images and recordings with the first
prompt only, gives up the KV cache for another, and never applies an adapter (measured with 0.18). A conversation
needs all three. So this runtime runs the encoders once for each file, keeps their features, and goes on from the cache
for as long as the adapter stays.
"""

from __future__ import annotations

from pathlib import Path

from edge.engine_settings import EngineSettings
from edge.runtimes.folder import read_folder
from edge.runtimes.multimodal.media import MEDIA_FILE
from edge.runtimes.multimodal.runtime import MultimodalRuntime


def accepts(path: Path) -> bool:
    return (path / MEDIA_FILE).is_file()


def load(
    path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool
) -> MultimodalRuntime:
    """`exact` changes nothing: the KV cache is float32."""
    del exact
    return MultimodalRuntime(read_folder(path, context_length), settings)
