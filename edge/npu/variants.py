"""The variants of a plan that are compiled for a SoC, and what a session of the NPU can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.onnx.npu.layout import plan as plan_files
from converters.onnx.npu.limits import WINDOW, cache_length
from edge.fitting.qnn import cache_bytes, session_bytes
from edge.npu.socs import Soc
from edge.planned import PlannedVariant

FORMAT = "npu"
EMULATION_SECONDS = 1.1e-6
"""For each weight of a variant's layers: the embedded default's 106 million took 1 min 58 s on two cores for the
proof's 70 tokens, from a context binary for 2048 (`edge convert` prints it)."""


def with_contexts(
    variants: Sequence[PlannedVariant], decoder: Decoder, socs: Sequence[Soc]
) -> list[PlannedVariant]:
    """`variants` and, after each that is for an NPU, one for every SoC. Raises UnsupportedError when SoCs are named
    and no variant is for one, or when a session cannot hold a variant."""
    made: list[PlannedVariant] = []
    for variant in variants:
        made.append(variant)
        if variant.format == FORMAT:
            refuse_too_large(variant, decoder)
            made += [_for_soc(variant, decoder, soc) for soc in socs]
    if socs and len(made) == len(variants):
        raise UnsupportedError("--soc is for NPU targets, and none is named", hint="add --target android-npu")
    return made


def _for_soc(variant: PlannedVariant, decoder: Decoder, soc: Soc) -> PlannedVariant:
    files = plan_files(decoder, variant.recipe, cache_length(variant.context_length))
    name = f"{variant.name}-{soc.name}"
    # A compiled stage holds its weights as they were stored, give or take a few percent.
    disk = files.head.nbytes + 2 * files.layers.nbytes
    return replace(variant, name=name, relative_path=name, disk_bytes=disk, soc=soc, source=variant.name)


def emulation_note(variants: Sequence[PlannedVariant], decoder: Decoder) -> list[str]:
    """How long the proof of NPU variants takes, where that is worth saying."""
    count = sum(variant.format == FORMAT for variant in variants)
    weights = sum(w.shape[0] * w.shape[1] for layer in decoder.layers for w in layer.weights() if w.is_matrix)
    minutes = count * weights * EMULATION_SECONDS / 60
    if minutes < 1:
        return []
    each = f" for {count} variants" if count > 1 else ""
    return [f"the proof runs on an emulated NPU: about {minutes:.0f} min{each}; --no-proof leaves it out"]


def refuse_too_large(variant: PlannedVariant, decoder: Decoder) -> None:
    limit = min(target.memory_mb for target in variant.targets) << 20
    needed = session_bytes(decoder, variant.recipe, variant.context_length)
    if needed <= limit:
        return
    left = limit - session_bytes(decoder, variant.recipe, 0)
    window = 2 * cache_bytes(decoder, WINDOW) // 2  # a window more of cache, in and out
    fits = left // window * WINDOW if left > 0 else 0
    raise UnsupportedError(
        f"{variant.name}: a session of the NPU would hold {needed >> 20} MiB with a context of "
        f"{variant.context_length} tokens, and can hold {limit >> 20} MiB",
        hint=f"--context {fits}"
        if fits > 0
        else "--precision int4, or convert for the CPU: --target android",
    )
