"""How a whole model of phi-4-mini's size would be cut for the NPU, from what its first layers measured.

A session of the HTP has an address space of 32 bits, of which a target allows `memory_mb`. In it lie a context
binary's weights and the KV cache of its layers, in and out. Only arithmetic: no such model was compiled here.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.shapes import SHAPES
from converters.decoder import Decoder, Weight
from converters.onnx.tensors import Stored


@dataclass(frozen=True)
class Measured:
    """Bytes of both stages' binaries: of one layer, and of each further one. `shared`: of a binary that holds both,
    over the two apart."""

    first: int
    each: int
    shared: float

    def of(self, layers: int) -> int:
        return self.first + (layers - 1) * self.each


@dataclass(frozen=True)
class Cut:
    """A whole model in `splits` parts of at most `layers` layers. `session`: bytes of the largest; `disk`: of all
    binaries, without embedding and lm_head."""

    arrangement: str
    splits: int
    layers: int
    session: int
    disk: int


def cuts(measured: Measured, layers: int, cache: int, limit: int) -> list[Cut]:
    """The fewest parts so that each session stays under `limit` bytes. `cache`: bytes of a layer's keys and values."""
    both = {
        "stages apart": 1.0,
        "both stages in one session": 2.0,
        "one binary, weights shared": 2 * measured.shared,
    }
    found = []
    for arrangement, weights in both.items():
        for splits in range(1, layers + 1):
            most = -(-layers // splits)
            session = int(measured.of(most) / 2 * weights) + 2 * most * cache
            if session <= limit:
                # Stages apart: two sessions a part, each with its own weights on disk.
                copies = 2.0 if weights == 1 else weights
                total = int(splits * measured.first + (layers - splits) * measured.each) / 2 * copies
                found.append(Cut(arrangement, splits, most, session, int(total)))
                break
    return found


def plan_table(form: str, measured: Measured, layer: Decoder, cache_length: int, memory_mb: int) -> str:
    """Markdown, for phi-4-mini's number of layers and vocabulary. `layer`: a decoder of its layers."""
    config, attention = SHAPES["phi4-mini-full"], layer.attention
    cache = 2 * 2 * attention.kv_heads * attention.head_dim * cache_length
    embedding = Weight("embedding", (config["vocab_size"], layer.hidden_size), ())
    head = sum(tensor.nbytes for tensor in Stored("embedding", "int8", (embedding,)).tensors)
    lines = [
        f"{config['num_hidden_layers']} layers, {form} activations, KV cache of {cache_length} positions: "
        f"{cache / 1e6:.1f} MB a layer; embedding and lm_head on the CPU: {head / 1e6:.0f} MB.",
        "",
        f"| arrangement | parts | layers in each | largest session, MiB (of {memory_mb}) | disk in all, MB |",
        "|---|---|---|---|---|",
    ]
    for cut in cuts(measured, config["num_hidden_layers"], cache, memory_mb << 20):
        lines.append(
            f"| {cut.arrangement} | {cut.splits} | {cut.layers} | {cut.session >> 20} | "
            f"{(cut.disk + head) / 1e6:.0f} |"
        )
    return "\n".join(lines)
