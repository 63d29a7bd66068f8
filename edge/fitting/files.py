"""The files that an artifact will consist of, before any is written."""

from __future__ import annotations

from pathlib import Path

from converters.decoder import Decoder
from converters.multimodal import Multimodal
from converters.onnx.tokenizer_files import OPTIONAL, REQUIRED
from converters.rooms import ROOMS, described
from edge.formats import FORMATS
from edge.planned import PlannedVariant


def artifact_files(variant: PlannedVariant, model: Decoder | Multimodal, checkpoint: Path) -> dict[str, int]:
    """Bytes by path in the bundle. Of the checkpoint only the sizes of its tokenizer files are looked at.

    Exact for an ONNX folder; a GGUF's vocabulary is estimated by its number of tokens.
    """
    content = described(variant.format, model)
    planned = ROOMS[variant.format].planned_files(content, variant.recipe, variant.context_length)
    if not FORMATS[variant.format].folder:
        return {variant.relative_path: sum(planned.values())}
    present = [name for name in (*REQUIRED, *OPTIONAL) if (checkpoint / name).is_file()]
    sizes = {**planned, **{name: (checkpoint / name).stat().st_size for name in present}}
    return {f"{variant.relative_path}/{name}": size for name, size in sizes.items()}
