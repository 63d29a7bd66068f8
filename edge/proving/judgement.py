"""A divergence against a target's limits."""

from __future__ import annotations

from dataclasses import replace

from converters.verify import Divergence
from edge.proving.subject import Subject
from edge.targets import Limits

APPROXIMATE_KL = 1.0
"""The most that an artifact may differ from its model which says that it is approximate: what 4 bits may."""


def limits_of(subject: Subject) -> Limits:
    """Those of its targets; of an approximate one only fidelity is held to them."""
    if not subject.approximate:
        return subject.limits
    return replace(subject.limits, quality_kl_mean=APPROXIMATE_KL, quality_top1=0.0)


def over(question: str, found: Divergence, limits: Limits) -> list[str]:
    """One line for each limit of `question` (fidelity, quality) that `found` is beyond."""
    most, least = getattr(limits, f"{question}_kl_mean"), getattr(limits, f"{question}_top1")
    failures = []
    if not found.kl_mean <= most:
        failures.append(f"{question}: mean KL {found.kl_mean:.4g} is above {most:g}")
    if not found.top1 >= least:
        failures.append(f"{question}: top-1 agreement {found.top1:.3f} is below {least:g}")
    return failures
