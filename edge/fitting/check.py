"""Does a model fit: its artifacts' sizes, their memory, and the phones that hold them, before any download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from converters.errors import UnsupportedError
from converters.rooms import ROOMS, described
from edge.fit import Cpu, device_memory, largest_context
from edge.fitting.files import artifact_files
from edge.fitting.memory import Memory
from edge.fitting.phones import Phone, Verdict, load_phones, verdict
from edge.npu.socs import load_socs
from edge.plan import plan
from edge.planned import ConvertRequest, Plan, PlannedVariant
from edge.progress import Progress
from edge.sources import Resolved
from edge.sources.preview import preview

PHONE_CPU: Cpu = "arm64"


@dataclass(frozen=True)
class PhoneFit:
    """`largest_context`: tokens with which the phone still holds the variant, 0 when with none."""

    phone: Phone
    verdict: Verdict
    largest_context: int


@dataclass(frozen=True)
class VariantFit:
    """`files`: bytes by path. `on_phones`: as `variant.memory`, on arm64."""

    variant: PlannedVariant
    files: Mapping[str, int]
    on_phones: Memory
    phones: tuple[PhoneFit, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            **self.variant.to_data(),
            "files": dict(self.files),
            "phone_memory": self.on_phones.to_data(),
            "phones": [
                {
                    **each.phone.to_data(),
                    "verdict": each.verdict,
                    "largest_context": each.largest_context,
                }
                for each in self.phones
            ],
        }


@dataclass(frozen=True)
class Fit:
    plan: Plan
    variants: tuple[VariantFit, ...]

    def to_data(self) -> dict[str, Any]:
        return {
            "source": self.plan.source.source,
            "architecture": self.plan.decoder.architecture,
            "parameters": self.plan.decoder.parameters,
            "download_bytes": self.plan.read_bytes,
            "variants": [each.to_data() for each in self.variants],
            "notes": list(self.plan.notes),
        }


def fit(request: ConvertRequest, progress: Progress, *, asked: bool = True) -> Fit:
    """Of a model that need not be here: config and headers are enough. Raises as `edge.plan.plan` does.

    asked: whether a person named the targets; of others those that refuse the model are left out, with a note.
    """
    with preview(
        request.checkpoint, locked=request.locked, frozen=request.frozen, progress=progress
    ) as source:
        refused: list[str] = []
        if not asked:
            request, refused = _able(request, progress, source)
        planned = plan(request, progress, source=source)
        planned = replace(planned, notes=(*planned.notes, *refused))
        phones = load_phones()
        variants = [
            _fit(planned, variant, artifact_files(variant, planned.model, source.directory), phones)
            for variant in planned.variants
        ]
    return Fit(planned, tuple(variants))


def _able(request: ConvertRequest, progress: Progress, source: Resolved) -> tuple[ConvertRequest, list[str]]:
    """The request for the targets that take the model, and a note on each of the others. Where all refuse, the first
    one's reason is raised."""
    refused: dict[str, UnsupportedError] = {}
    for target in request.targets:
        try:
            plan(replace(request, targets=(target,)), progress, source=source)
        except UnsupportedError as error:
            refused[target] = error
    able = tuple(target for target in request.targets if target not in refused)
    if not able:
        raise next(iter(refused.values()))
    return replace(request, targets=able), [
        f"not for {name}: {error.cause}" for name, error in refused.items()
    ]


def suits(format_name: str, phone: Phone) -> bool:
    """Whether the phone has what runs the format: for "npu" one of the SoCs that `--soc` knows."""
    return format_name != "npu" or any(soc.title in phone.soc.split(" or ") for soc in load_socs().values())


def _fit(planned: Plan, variant: PlannedVariant, files: Mapping[str, int], phones: list[Phone]) -> VariantFit:
    what = (variant.format, planned.model, variant.recipe)
    settings = variant.targets[0].profile.engine
    limit = ROOMS[variant.format].context_limit(described(variant.format, planned.model))[0]
    memory = device_memory(*what, variant.context_length, cpu=PHONE_CPU, settings=settings)
    found = [
        PhoneFit(
            phone,
            verdict(memory, phone.usable) if suits(variant.format, phone) else "no NPU",
            largest_context(*what, limit, phone.usable, cpu=PHONE_CPU, settings=settings)
            if suits(variant.format, phone)
            else 0,
        )
        for phone in phones
    ]
    return VariantFit(variant, files, memory, tuple(found))
