"""A divergence against a target's limits."""

from __future__ import annotations

from dataclasses import replace

from converters.decoder import Decoder, Experts
from converters.verify import Divergence
from edge.proving.subject import Subject
from edge.targets import Limits
from quant.blocks import FORMATS

MOST_KL = 1.0
"""The most that an artifact may differ from its model which says that it is approximate: what 4 bits may."""
REROUTED_KL = 0.3
"""The same for fidelity, where the runtime rounds activations on their way to a router and so sends some tokens to
other experts. Measured on random models: 0.007 to 0.06 with 2 to 4 layers, 0.13 with 8, 0.22 with 24; with a wrong
routing 0.6."""


def limits_of(subject: Subject, decoder: Decoder) -> Limits:
    """Those of its targets, wider where it is approximate (and says so) or tokens are routed otherwise by rounding."""
    limits = subject.limits
    rerouted = _rerouted(subject, decoder)
    if rerouted:
        limits = replace(limits, fidelity_kl_mean=REROUTED_KL, fidelity_top1=0.0)
    if rerouted or subject.approximate:
        limits = replace(limits, quality_kl_mean=MOST_KL, quality_top1=0.0)
    return limits


def _rerouted(subject: Subject, decoder: Decoder) -> bool:
    """llama.cpp rounds what it multiplies blocks by; onnxruntime, as graphs are made here, for 8-bit experts only."""
    mixtures = [layer.mlp for layer in decoder.layers if isinstance(layer.mlp, Experts)]
    experts = {subject.recipe.storage(weight) for mlp in mixtures for weight in mlp.weights()}
    if subject.format != "gguf":
        return "int8" in experts
    every = {subject.recipe.storage(weight) for weight in decoder.weights()}
    return decoder.has_experts and not FORMATS.keys().isdisjoint(every)


def over(question: str, found: Divergence, limits: Limits) -> list[str]:
    """One line for each limit of `question` (fidelity, quality) that `found` is beyond."""
    most, least = getattr(limits, f"{question}_kl_mean"), getattr(limits, f"{question}_top1")
    failures = []
    if not found.kl_mean <= most:
        failures.append(f"{question}: mean KL {found.kl_mean:.4g} is above {most:g}")
    if not found.top1 >= least:
        failures.append(f"{question}: top-1 agreement {found.top1:.3f} is below {least:g}")
    return failures
