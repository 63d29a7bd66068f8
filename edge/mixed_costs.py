"""What every storage of every matrix costs, measured once a checkpoint and kept in the cache (`quant.sensitivity`)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.forward import SCORE_BYTES
from converters.reference import CHUNK_BYTES
from converters.writer import Storage
from edge.progress import Progress
from edge.sources.cache import checkpoint_key, exclusive, place, write_whole
from quant.activation_store import OnDisk
from quant.blocks import FORMATS
from quant.sensitivity import ROWS, Costs, measure

WINDOWS = 8
"""Of 512 tokens: a single cost then has a standard error of a tenth (benchmarks/sensitivity.py)."""
# Bump it when the same checkpoint and text would give other costs.
VERSION = 1


def measured_costs(
    checkpoint: Checkpoint, decoder: Decoder, windows: NDArray[np.int64], progress: Progress
) -> Costs:
    """Nats a token by weight and block format, from the cache or measured now on WINDOWS of `windows`."""
    some = windows[np.unique(np.linspace(0, len(windows) - 1, WINDOWS).astype(np.intp))]
    length = some.shape[1]
    ids = hashlib.sha256(some.tobytes()).hexdigest()
    file = place("sensitivities", f"{checkpoint_key(checkpoint, version=VERSION, ids=ids)}.json")
    with exclusive(file):
        if file.is_file():
            return cast(Costs, json.loads(file.read_text()))
        progress.note(
            f"measuring what each storage of each matrix costs, on {len(some)} x {length} tokens (once a checkpoint, "
            f"about {measuring_memory(decoder, length) / 1e6:.0f} MB of memory)"
        )
        progress.stage("sensitivity", 2 * len(decoder.layers), "layers")
        with tempfile.TemporaryDirectory(dir=file.parent) as spill:
            costs = measure(
                checkpoint,
                decoder,
                some,
                cast(list[Storage], list(FORMATS)),
                scored=slice(length // 2, length - 1),
                store=OnDisk(Path(spill)),
                advance=progress.advance,
            )
        write_whole(file, json.dumps(costs, sort_keys=True).encode())
    return costs


def measuring_memory(decoder: Decoder, length: int) -> int:
    """Peak of measuring the costs on WINDOWS windows of `length` tokens; what is spilled is not in it."""
    matrices = [w for layer in decoder.layers[:1] for w in layer.weights() if w.is_matrix]
    width, count = decoder.hidden_size, len(FORMATS)
    layer = sum(w.rows * w.shape[1] for w in matrices)
    changes = sum(min(ROWS, w.rows) * w.shape[1] for w in matrices) * count
    # The residual stream and its gradient, and of the scored half what goes into lm_head, twice, and its labels' rows.
    streams = WINDOWS * length * width * 7 // 2
    # A chunk of lm_head, its errors, and for one window some arrays of as many logits, two of them in float64.
    logits = length // 2 * (CHUNK_BYTES // 4 // width) * 8
    head = (CHUNK_BYTES // 4) * (count + 3) + logits
    attention = decoder.attention.heads * decoder.attention.head_dim
    window = length * 12 * (decoder.intermediate_size + width + attention) + 3 * SCORE_BYTES // 4
    return 4 * (layer + changes + streams + head + window)
