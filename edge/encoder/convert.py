"""`edge convert` of an encoder: float and int8 ONNX graphs, the tokenizer, a manifest and a proof, published whole."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from converters.errors import ProofError
from edge.bundle import FORMAT, MANIFEST, PROOF, hash_files, write_json
from edge.encoder.exporters import EXPORTERS, Exported
from edge.encoder.plan import PRECISIONS, EncoderPlan
from edge.encoder.probes import batch, probe_texts, read_tokenizer
from edge.encoder.proof import prove
from edge.formats import ENCODER
from edge.manifest import copy_shared_files, tool_version
from edge.progress import Progress
from edge.staging import staging


def convert(planned: EncoderPlan, progress: Progress) -> dict[str, Any]:
    """Export, prove and publish; returns the manifest and the proof with the place.

    Raises ProofError when a graph's answers are too far from the checkpoint's, and what the exporter
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
            made = {p: directory / p for p in PRECISIONS if (directory / p).is_dir()}
            proof = prove(made, probes, exported.answers)
            write_json(directory / PROOF, proof)
            if not proof["passed"] and not planned.allow_unproven:
                name, first = next(
                    (n, r["failures"][0]) for n, r in proof["variants"].items() if r["failures"]
                )
                raise ProofError(
                    f"the proof of {name} failed: {first}; nothing was published",
                    hint="`--allow-unproven` publishes it all the same, and the manifest says so",
                )
        if "f32" not in planned.precisions:
            shutil.rmtree(directory / "f32")
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


def _manifest(
    planned: EncoderPlan, proof: dict[str, Any] | None, exported: Exported, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    verdict = "unproven: --no-proof" if proof is None else "passed" if proof["passed"] else "unproven: failed"
    source = planned.source
    pinned = {f.path: {"size": f.size, "sha256": f.sha256} for f in source.files}
    ours = ("edge", "onnx", "onnxruntime") if "int8" in planned.precisions else ("edge",)
    tools = {name: tool_version(name) for name in ours}
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
