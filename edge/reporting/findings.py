"""Everything that a report shows, as it was found: figures only, no layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, Variant
from edge.evaluation.result import Evaluation
from edge.reporting.claims import Facts, Proof, Provenance
from edge.reporting.errors import Errors
from edge.reporting.sizes import Sizes
from edge.reporting.speed import Speed


@dataclass(frozen=True)
class VariantFindings:
    """One artifact. bits (of `storage_bits`), errors, evaluation: None without a checkpoint."""

    variant: Variant
    facts: Facts
    sizes: Sizes
    proof: Proof | None
    bits: NDArray[np.float64] | None
    errors: Errors | None
    evaluation: Evaluation | None

    @property
    def name(self) -> str:
        return self.variant.name


@dataclass(frozen=True)
class Findings:
    """A bundle's. original: the checkpoint's own bytes, None without one. speeds: empty when none were measured."""

    bundle: Bundle
    provenance: Provenance
    variants: tuple[VariantFindings, ...]
    original: Sizes | None
    speeds: tuple[Speed, ...]

    def to_data(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.bundle.name,
            "proof": self.bundle.manifest["proof"],
            "source": {"pin": self.provenance.pin, "licence": self.provenance.licence},
            "model": dict(self.provenance.model),
            "checkpoint": self.original and self.original.to_data(),
            "variants": [
                {
                    "name": found.name,
                    "format": found.variant.format,
                    "targets": list(found.variant.targets),
                    "context_length": found.variant.context_length,
                    "recipe": dict(found.variant.recipe),
                    "sizes": found.sizes.to_data(),
                    "device_memory": found.facts.memory,
                    "proof": found.proof and asdict(found.proof),
                    "bits_per_weight": None if found.bits is None else found.bits.tolist(),
                    "errors": found.errors and found.errors.to_data(),
                    "evaluation": found.evaluation and found.evaluation.to_data(),
                }
                for found in self.variants
            ],
            "speed": [asdict(speed) for speed in self.speeds],
        }
