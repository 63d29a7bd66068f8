"""What becomes of an encoder, before a byte is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.checkpoint import Checkpoint
from converters.errors import UnsupportedError
from edge.encoder.sentences import Sentences, read_sentences
from edge.manifest import check_side_files
from edge.planned import ConvertRequest
from edge.sources import Resolved

PRECISIONS = ("f32", "int8")
OFFSET_TYPES = ("roberta", "xlm-roberta")
"""Their positions are counted from pad_token_id + 1."""


@dataclass(frozen=True)
class EncoderPlan:
    """What will be written; `labels` of a classifier, `sentences` of a model of sentence vectors."""

    source: Resolved
    output: Path
    precisions: tuple[str, ...]
    model_type: str
    labels: tuple[str, ...]
    sentences: Sentences | None
    context_length: int
    pad: int
    sizes: Mapping[str, int]
    proof: bool
    allow_unproven: bool

    def to_data(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "source": self.source.source,
            "model": self.model(),
            "variants": [{"name": p, "precision": p, "targets": ["cpu"]} for p in self.precisions],
        }

    def model(self) -> dict[str, Any]:
        """The manifest's table of that name."""
        return {
            "model_type": self.model_type,
            "labels": list(self.labels) or None,
            "pooling": self.sentences.pooling if self.sentences else None,
            "normalized": self.sentences.normalized if self.sentences else None,
            "pad": self.pad,
            **self.sizes,
        }


def plan(request: ConvertRequest, source: Resolved) -> EncoderPlan:
    """Read config and headers, write nothing. Raises UnsupportedError for an option that says nothing of an encoder,
    and what `Checkpoint.open` raises."""
    _refuse_unused(request)
    check_side_files(source.directory)
    with Checkpoint.open(source.directory) as checkpoint:
        config = dict(checkpoint.config)
        parameters = sum(int(np.prod(t.shape)) for t in checkpoint.tensors.values())
    classes = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    pad = int(config.get("pad_token_id") or 0)
    offset = pad + 1 if config["model_type"] in OFFSET_TYPES else 0
    length = int(config.get("max_position_embeddings", 512)) - offset
    sentences = None if classes else read_sentences(source.directory)
    return EncoderPlan(
        source=source,
        output=request.output or Path("bundles") / f"{source.name}-cpu",
        precisions=(request.precision,) if request.precision else PRECISIONS,
        model_type=config["model_type"],
        labels=tuple(str(names[key]) for key in sorted(names, key=int)) if classes else (),
        sentences=sentences,
        context_length=int(min(length, sentences.longest)) if sentences else length,
        pad=pad,
        sizes={
            "parameters": parameters,
            "layers": int(config.get("num_hidden_layers") or config.get("n_layers") or 0),
            "hidden_size": int(config.get("hidden_size") or config.get("dim") or 0),
            "vocab_size": int(config["vocab_size"]),
        },
        proof=request.proof,
        allow_unproven=request.allow_unproven,
    )


def _refuse_unused(request: ConvertRequest) -> None:
    if list(request.targets) != ["cpu"]:
        raise UnsupportedError(
            f"an encoder is exported for target cpu, not {', '.join(request.targets)}",
            hint="--target cpu: plain ONNX, which onnxruntime runs on a phone too",
        )
    if request.precision not in (None, *PRECISIONS):
        raise UnsupportedError(
            f"an encoder is stored in f32 or int8, not {request.precision}",
            hint="leave out --precision for both",
        )
    given = {
        "--context": request.context,
        "--recipe": request.recipe,
        "--calibrate": request.calibrate,
        "--bits-per-weight": request.bits_per_weight,
        "--size-mb": request.size_mb,
        "--soc": request.socs,
        "--adapter": request.adapters,
    }
    if named := [option for option, value in given.items() if value]:
        raise UnsupportedError(f"{named[0]} has no meaning for an encoder", hint=f"leave out {named[0]}")
