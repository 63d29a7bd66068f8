"""A divergence against a target's limits."""

from __future__ import annotations

from converters.verify import Divergence
from edge.targets import Limits


def over(question: str, found: Divergence, limits: Limits) -> list[str]:
    """One line for each limit of `question` (fidelity, quality) that `found` is beyond."""
    most, least = getattr(limits, f"{question}_kl_mean"), getattr(limits, f"{question}_top1")
    failures = []
    if not found.kl_mean <= most:
        failures.append(f"{question}: mean KL {found.kl_mean:.4g} is above {most:g}")
    if not found.top1 >= least:
        failures.append(f"{question}: top-1 agreement {found.top1:.3f} is below {least:g}")
    return failures
