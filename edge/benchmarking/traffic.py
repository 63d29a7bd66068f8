"""How many bytes of an artifact one decoded token reads: the weights that it touches, and the KV cache.

A weight counts whole, an embedding by its one row unless it is the output projection too (tied), experts by the
share that is chosen. Activations and what is written stay in the caches and are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.runtimes import qnn


@dataclass(frozen=True)
class Traffic:
    """`weights`: bytes a token. `kv`: bytes of one position in all layers. `window`: positions that attention sees
    (None: all). `file_bytes`: the artifact's weights and graph as they lie on the disk."""

    weights: int
    kv: int
    window: int | None
    file_bytes: int

    def at(self, depth: int) -> int:
        """Bytes that the token after `depth` others reads."""
        return self.weights + self.kv * (depth if self.window is None else min(depth, self.window))


def traffic(artifact: Path, kv_type: str = "f16") -> Traffic | None:
    """From the headers alone. `kv_type`: what llama.cpp keeps keys and values in; an ONNX graph says its own.
    None for an artifact of an engine from outside, whose format is not known here, and for an NPU's, whose memory is
    not this computer's."""
    if qnn.accepts(artifact):
        return None
    if (artifact / "genai_config.json").is_file():
        from edge.benchmarking.onnx_traffic import onnx_traffic

        return onnx_traffic(artifact)
    if artifact.is_file() and _is_gguf(artifact):
        from edge.benchmarking.gguf_traffic import gguf_traffic

        return gguf_traffic(artifact, kv_type)
    return None


def _is_gguf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"GGUF"
