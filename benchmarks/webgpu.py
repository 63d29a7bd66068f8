"""Decode the DirectML graph on a second GPU API: WebGPU, on a software Vulkan device, beside the reference.

    python3 -m venv .venv-webgpu && .venv-webgpu/bin/pip install onnxruntime-webgpu==1.27.0
    python -m benchmarks.webgpu [--python .venv-webgpu/bin/python] [--vulkan /usr/lib/chromium] [--shapes phi4-mini]

`--vulkan` holds SwiftShader (vk_swiftshader_icd.json) and a Vulkan loader (libvulkan.so.1), as Debian's
chromium-common does. SwiftShader has no float16: the very graph of `converters.onnx.dml`, over the same data file, is
built with float32 activations. onnxruntime falls back to the CPU without a word, so the session's providers and the
profile of a run are looked at. Exit code 1 when a decoder operator ran elsewhere or the logits are off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_checkpoint import SHAPES, TOKENIZERS, write_checkpoint
from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx import dml
from converters.onnx.dml.decoder_graph import build
from converters.onnx.dml.layout import plan
from converters.reference import logits
from converters.verify import divergence
from quant.recipe import Recipe

CHILD = Path(__file__).with_name("webgpu_child.py")
PYTHON = Path(os.environ.get("EDGE_WEBGPU_PYTHON", ".venv-webgpu/bin/python"))
VULKAN = Path("/usr/lib/chromium")
PROVIDER = "WebGpuExecutionProvider"
DEVICE_OPS = {
    "MatMulNBits",
    "GroupQueryAttention",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}
"""What must run on the device, all of it. The rest is integers of the mask, and the look-up of an embedding row."""
TOLERANCE = 1e-4
"""Float32 logits of order 1, summed in another order; measured: 6e-6."""
_TOKENS, _CONTEXT = 16, 64
_RECIPE = Recipe.preset("int4")


@dataclass(frozen=True)
class Decoding:
    """A shape on WebGPU, token by token, against the float reference on the stored weights.

    prefill_error: of all tokens in one run, which this provider computes wrongly on SwiftShader and which is not
    judged. nodes: by provider and operator, of one run.
    """

    shape: str
    tokens: int
    version: str
    providers: list[str]
    top1: float
    largest_error: float
    cosine: float
    prefill_error: float
    nodes: dict[str, dict[str, int]]

    @property
    def faults(self) -> list[str]:
        """What is wrong, one line each."""
        found = []
        if self.providers[:1] != [PROVIDER]:
            found.append(f"the session runs on {', '.join(self.providers)}")
        elsewhere = {op for provider, ops in self.nodes.items() if provider != PROVIDER for op in ops}
        missing = DEVICE_OPS - set(self.nodes.get(PROVIDER, {}))
        found += [f"{op} ran on another provider" for op in sorted(DEVICE_OPS & elsewhere)]
        found += [f"{op} did not run on {PROVIDER}" for op in sorted(missing)]
        if not self.largest_error <= TOLERANCE:
            found.append(f"logits are off by {self.largest_error:.2g}")
        return found


def absent(python: Path = PYTHON, vulkan: Path = VULKAN) -> str | None:
    """What is not here, or None: the interpreter with onnxruntime-webgpu, or the Vulkan device."""
    for file in (python, vulkan / "vk_swiftshader_icd.json", vulkan / "libvulkan.so.1"):
        if not file.exists():
            return f"{file} is not here"
    return None


def decode(shape: str, python: Path = PYTHON, vulkan: Path = VULKAN) -> Decoding:
    """Write a tiny random model of that shape, and run it there. RuntimeError when the child fails."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        reference = _prepare(shape, work)
        places = {"LD_LIBRARY_PATH": vulkan, "VK_ICD_FILENAMES": vulkan / "vk_swiftshader_icd.json"}
        environment = {**os.environ, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": ""}
        done = subprocess.run(
            [python, CHILD, work], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found, prefill = np.load(work / "logits.npy"), np.load(work / "prefill.npy")
    compared = divergence(reference, found)
    return Decoding(
        shape=shape,
        tokens=len(reference),
        top1=compared.top1,
        largest_error=compared.max_logit_error,
        cosine=compared.cosine,
        prefill_error=float(np.abs(reference - prefill).max()),
        **told,
    )


def _prepare(shape: str, work: Path) -> NDArray[np.float32]:
    """The variant with its graph in float32, and ids.npy; returns the reference's logits."""
    write_checkpoint(work / "checkpoint", SHAPES[shape], tokenizer=TOKENIZERS[shape])
    with Checkpoint.open(work / "checkpoint") as checkpoint:
        decoder = describe(checkpoint)
        writer = dml.open_writer(
            decoder, _RECIPE, work, context_length=_CONTEXT, checkpoint_directory=checkpoint.directory
        )
        for weight in decoder.weights():
            writer.write(weight, 0, _RECIPE.encode(weight, checkpoint.weight_rows(weight, 0, weight.rows)))
        writer.close()
        graph = build(decoder, plan(decoder, _RECIPE, _CONTEXT), activations=np.dtype(np.float32))
        (work / "model.onnx").write_bytes(graph.SerializeToString())
        ids = np.random.default_rng(0).integers(5, decoder.vocab_size, _TOKENS)
        np.save(work / "ids.npy", ids)
        return logits(
            checkpoint,
            decoder,
            ids.tolist(),
            transform=lambda weight, start, raw: Recipe.decode(_RECIPE.encode(weight, raw, start=start)),
        )


def _show(found: Decoding) -> None:
    print(
        f"{found.shape}: {found.tokens} tokens one by one on {found.providers[0]} {found.version}: "
        f"cosine {found.cosine:.7f}, top-1 {found.top1:.1%}, largest error {found.largest_error:.2g} "
        f"(all in one run: {found.prefill_error:.2g}, not judged)"
    )
    for provider, ops in sorted(found.nodes.items()):
        print(f"  {provider}: {', '.join(f'{count} {op}' for op, count in ops.items())}")
    for fault in found.faults:
        print(f"  FAULT: {fault}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--python", type=Path, default=PYTHON, help="of an environment with onnxruntime-webgpu"
    )
    parser.add_argument(
        "--vulkan", type=Path, default=VULKAN, help="where SwiftShader and libvulkan.so.1 are"
    )
    parser.add_argument("--shapes", nargs="+", default=["phi3-mini-4k", "phi4", "phi4-mini"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if missing := absent(asked.python, asked.vulkan):
        print(missing, file=sys.stderr)
        return 1
    found = [decode(shape, asked.python, asked.vulkan) for shape in asked.shapes]
    if asked.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
    else:
        for each in found:
            _show(each)
    return int(any(each.faults for each in found))


if __name__ == "__main__":
    sys.exit(main())
