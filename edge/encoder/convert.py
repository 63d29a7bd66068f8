"""`edge convert` of an encoder: float and int8 ONNX graphs, the tokenizer, a manifest and a proof, published whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import ProofError, UnsupportedError
from edge.bundle import FORMAT, MANIFEST, PROOF, hash_files, write_json
from edge.encoder.exporters import EXPORTERS, Exported
from edge.encoder.probes import batch, probe_texts, read_tokenizer
from edge.encoder.session import run_graph
from edge.formats import ENCODER
from edge.manifest import TOOLS, check_side_files, copy_shared_files
from edge.planned import ConvertRequest
from edge.progress import Progress
from edge.sources import Resolved
from edge.staging import staging

LIMIT = 1e-4
"""Largest difference of a float graph's answers from the checkpoint's own."""
PRECISIONS = ("f32", "int8")
OFFSET_TYPES = ("roberta", "xlm-roberta")
"""Their positions are counted from pad_token_id + 1."""


@dataclass(frozen=True)
class EncoderPlan:
    """What will be written; `labels` of a classifier, `pooling` ("mean", "cls") of a sentence-embedding model."""

    source: Resolved
    output: Path
    precisions: tuple[str, ...]
    model_type: str
    labels: tuple[str, ...]
    pooling: str | None
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
            "pooling": self.pooling,
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
        pooling = _pooling(source.directory)
    classes = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    pad = int(config.get("pad_token_id") or 0)
    offset = pad + 1 if config["model_type"] in OFFSET_TYPES else 0
    return EncoderPlan(
        source=source,
        output=request.output or Path("bundles") / f"{source.name}-cpu",
        precisions=(request.precision,) if request.precision else PRECISIONS,
        model_type=config["model_type"],
        labels=tuple(str(names[key]) for key in sorted(names, key=int)) if classes else (),
        pooling=None if classes else pooling,
        context_length=int(config.get("max_position_embeddings", 512)) - offset,
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


def convert(planned: EncoderPlan, progress: Progress) -> dict[str, Any]:
    """Export, prove and publish; returns the manifest and the proof with the place.

    Raises ProofError when the float graph's answers are more than LIMIT from the checkpoint's, and what the exporter
    and staging raise.
    """
    tokenizer = read_tokenizer(planned.source.directory, planned.context_length)
    probes = batch(tokenizer, probe_texts(), planned.pad)
    with staging(planned.output) as directory:
        (directory / "f32").mkdir()
        progress.stage("export")
        exported = EXPORTERS[planned.model_type](planned.source.directory, directory / "f32", probes)
        if "int8" in planned.precisions:
            progress.stage("quantize")
            (directory / "int8").mkdir()
            quantize(directory / "f32", directory / "int8")
        proof = None
        if planned.proof:
            progress.stage("prove")
            proof = prove(planned, directory, probes, exported.answers)
            write_json(directory / PROOF, proof)
            if not proof["passed"] and not planned.allow_unproven:
                raise ProofError(
                    f"f32 answers {proof['variants']['f32']['max_error']:.2g} from the checkpoint's, more than "
                    f"{LIMIT:g}; nothing was published",
                    hint="`--allow-unproven` publishes it all the same, and the manifest says so",
                )
        if "f32" not in planned.precisions:
            for file in (directory / "f32").iterdir():
                file.unlink()
            (directory / "f32").rmdir()
        copy_shared_files(planned.source.directory, directory)
        manifest = _manifest(planned, proof, exported, hash_files(directory))
        write_json(directory / MANIFEST, manifest)
    progress.done()
    return {"output": str(planned.output), "manifest": manifest, "proof": proof}


def quantize(source: Path, output: Path) -> None:
    """Weights of products and embeddings as uint8, a scale an output channel; activations are rounded as they come.

    Unsigned, because signed ones overflow in the 16-bit sums of a processor without VNNI (onnxruntime's manual,
    "Quantization", on U8S8).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends, for every graph, what is done for images
    try:
        quantize_dynamic(
            source / "model.onnx", output / "model.onnx", per_channel=True, weight_type=QuantType.QUInt8
        )
    finally:
        logging.disable(logging.NOTSET)


def prove(
    planned: EncoderPlan,
    directory: Path,
    probes: Mapping[str, NDArray[np.int64]],
    expected: NDArray[np.float32],
) -> dict[str, Any]:
    """proof.json: what each graph answers in onnxruntime, against the checkpoint; padding has no say."""
    mask = probes["attention_mask"].astype(bool)
    results = {}
    for precision in PRECISIONS:
        if not (directory / precision).is_dir():
            continue
        found = run_graph(directory / precision, probes, threads=1)
        wanted, got = (expected, found) if planned.labels else (expected[mask], found[mask])
        error = float(np.abs(wanted - got).max())
        results[precision] = {
            "runtime": "onnxruntime",
            "probes": len(mask),
            "max_error": error,
            "relative_error": float(np.linalg.norm(wanted - got) / np.linalg.norm(wanted)),
            "passed": precision != "f32" or error <= LIMIT,
        }
        if planned.labels:
            same = wanted.argmax(-1) == got.argmax(-1)
            results[precision]["same_label"] = float(same.mean())
    return {
        "passed": all(r["passed"] for r in results.values()),
        "limit": {"f32": LIMIT},
        "variants": results,
    }


def _manifest(
    planned: EncoderPlan, proof: dict[str, Any] | None, exported: Exported, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    verdict = "unproven: --no-proof" if proof is None else "passed" if proof["passed"] else "unproven: failed"
    source = planned.source
    pinned = {f.path: {"size": f.size, "sha256": f.sha256} for f in source.files}
    tools = {name: version(name) for name in ("onnx", "onnxruntime") if name in TOOLS or "int8" in planned.precisions}
    return {
        "format": FORMAT,
        "name": source.name,
        "source": {"pin": source.source, "licence": source.licence, "files": pinned},
        "model": planned.model(),
        "tools": tools | exported.tools,
        "variants": [
            {
                "name": precision,
                "format": ENCODER,
                "path": precision,
                "targets": ["cpu"],
                "precision": precision,
                "context_length": planned.context_length,
                "recipe": {},
            }
            for precision in planned.precisions
        ],
        "proof": verdict,
        "files": files,
    }


def _pooling(directory: Path) -> str | None:
    """How a sentence-transformers checkpoint makes one vector of a text's hidden states, where it says."""
    from converters.checkpoint_files import read_json

    folder = directory / "1_Pooling"
    if not (folder / "config.json").is_file():
        return None
    found = read_json(folder.resolve(), "config.json")
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return next((name for key, name in modes.items() if found.get(key)), None)


def _refuse_unused(request: ConvertRequest) -> None:
    if list(request.targets) != ["cpu"]:
        raise UnsupportedError(
            f"an encoder is exported for target cpu, not {', '.join(request.targets)}",
            hint="--target cpu: plain ONNX, which onnxruntime runs on a phone too",
        )
    if request.precision not in (None, *PRECISIONS):
        raise UnsupportedError(
            f"an encoder is stored in f32 or int8, not {request.precision}", hint="leave out --precision for both"
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
