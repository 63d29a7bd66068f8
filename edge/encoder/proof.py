"""The proof of an encoder's graphs: float ones answer as the checkpoint does; how int8 ones differ is written down."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.encoder.exporters import EXPORTERS, Probes
from edge.encoder.probes import batch, probe_texts, read_tokenizer
from edge.encoder.session import run_graph

LIMITS = {"f32": 1e-4}
"""Largest difference of a graph's answers from the checkpoint's own; none for int8, whose differences are told."""


def prove_anew(bundle: Bundle, checkpoint: Path) -> dict[str, Any]:
    """As `prove`, of a published bundle: the checkpoint is exported again, for its answers alone."""
    model = bundle.manifest["model"]
    length = bundle.variants[0].context_length
    probes = batch(read_tokenizer(bundle.directory, length), probe_texts(), int(model["pad"]))
    with tempfile.TemporaryDirectory() as folder:
        exported = EXPORTERS[model["model_type"]](checkpoint, Path(folder), probes)
    return prove({v.precision: v.path for v in bundle.variants}, probes, exported.answers)


def prove(graphs: Mapping[str, Path], probes: Probes, expected: NDArray[np.float32]) -> dict[str, Any]:
    """proof.json: what the graph in each folder, by precision, answers in onnxruntime, against the checkpoint's
    answers. Of hidden states those of padding have no say."""
    mask = probes["attention_mask"].astype(bool)
    labels = expected.ndim == 2
    results = {}
    for precision, folder in graphs.items():
        found = run_graph(folder, probes, threads=1)
        wanted, got = (expected, found) if labels else (expected[mask], found[mask])
        error, limit = float(np.abs(wanted - got).max()), LIMITS.get(precision, math.inf)
        results[precision] = {
            "runtime": "onnxruntime",
            "probes": len(mask),
            "max_error": error,
            "relative_error": float(np.linalg.norm(wanted - got) / np.linalg.norm(wanted)),
            "passed": error <= limit,
            "failures": []
            if error <= limit
            else [f"answers {error:.2g} from the checkpoint's, more than {limit:g}"],
        }
        if labels:
            same = wanted.argmax(-1) == got.argmax(-1)
            results[precision]["same_label"] = float(same.mean())
        else:
            results[precision]["worst_cosine"] = _worst_cosine(expected, found, mask)
    return {
        "passed": all(r["passed"] for r in results.values()),
        "limits": LIMITS,
        "variants": results,
    }


def _worst_cosine(one: NDArray[np.float32], other: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """The least cosine between the two means of a text's hidden states, which sentence vectors are made of."""
    a, b = ((each * mask[..., None]).sum(1, dtype=np.float64) for each in (one, other))
    return float(((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))).min())
