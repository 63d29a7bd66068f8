"""A bundle's encoder in onnxruntime: text in, labels or vectors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import BundleError, UnsupportedError
from edge.bundle import load
from edge.encoder.probes import batch, read_tokenizer
from edge.formats import ENCODER

BATCH = 16


def run_graph(
    folder: Path, inputs: Mapping[str, NDArray[np.int64]], threads: int | None = None
) -> NDArray[np.float32]:
    """The first output of `folder`/model.onnx; what the graph asks for and `inputs` lack is zeros."""
    return run_session(open_graph(folder, threads), inputs)


def open_graph(folder: Path, threads: int | None = None) -> Any:
    """An onnxruntime session. Raises BundleError where it cannot be made."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises what its C++ layer made of it
        line = str(error).splitlines()[0]
        raise BundleError(
            f"{folder}: onnxruntime refuses the graph: {line}", hint="edge verify BUNDLE"
        ) from None


def run_session(session: Any, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """As `run_graph`, of what `open_graph` gave."""
    names = [each.name for each in session.get_inputs()]
    feeds = {name: inputs.get(name, np.zeros_like(inputs["input_ids"])) for name in names}
    found: NDArray[np.float32] = session.run(None, feeds)[0]
    return found


@dataclass(frozen=True)
class Classifier:
    """An opened bundle; `labels` in the order of the graph's logits."""

    session: Any
    tokenizer: Any
    labels: tuple[str, ...]
    pad: int

    def probabilities(self, texts: list[str]) -> NDArray[np.float32]:
        """[texts, labels], each row's sum 1."""
        rows = [np.zeros((0, len(self.labels)), np.float32)]
        for start in range(0, len(texts), BATCH):
            logits = run_session(self.session, batch(self.tokenizer, texts[start : start + BATCH], self.pad))
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            rows.append(powers / powers.sum(-1, keepdims=True))
        return np.concatenate(rows)


def open_classifier(directory: Path, precision: str | None = None, threads: int | None = None) -> Classifier:
    """The classifier of a bundle, in its smallest form or the one of `precision`. Raises BundleError for what is no
    bundle, UnsupportedError for one that gives no labels or lacks the precision."""
    bundle = load(directory)
    model = bundle.manifest.get("model", {})
    variants = {v.precision: v for v in bundle.variants if v.format == ENCODER}
    if not variants or not model.get("labels"):
        raise UnsupportedError(
            f"{directory} holds a model that gives {'vectors' if variants else 'text'}, no labels",
            hint="give the bundle of an encoder with a classification head"
            if variants
            else f"edge chat -m {directory}",
        )
    if precision and precision not in variants:
        raise UnsupportedError(
            f"{directory} holds {' and '.join(variants)}, and no {precision}",
            hint=f"edge convert ... --precision {precision}",
        )
    variant = variants[precision] if precision else variants.get("int8") or next(iter(variants.values()))
    return Classifier(
        open_graph(variant.path, threads),
        read_tokenizer(directory, variant.context_length),
        tuple(model["labels"]),
        int(model["pad"]),
    )
