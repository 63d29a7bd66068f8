"""Calibration: the reference evaluator walked over a text, layer by layer, and every linear layer coded on the way.

Two residual streams go through the model side by side: the checkpoint's own, and that of the model as it is
quantized so far. A linear layer W with float inputs x and quantized inputs z is coded for

    min_Q  sum over tokens of a |W x + r - Q z|^2

so that it also makes up for what the layers before it lost. Where the layer's output is added to the residual
streams, r is their difference and a the inverse of the stream's mean square, which the next norm divides by;
otherwise r = 0 and a = 1. With H = sum a z z^T, C = sum a x z^T and B = sum a r z^T the best real-valued answer is
W + (W (C - H) + B) H^-1, and `quant.gptq` rounds that in the metric H.

In memory: the weights of one layer (float32, twice), the residual streams (or a file, `spill`), one Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError, MachineError
from converters.forward import Floats, attention_mix, rms_norm, rope_table, swiglu_mix
from converters.plain import require_plain
from converters.reference import Resident, Streamed, check_finite
from quant import gptq
from quant.activations import Activations, InMemory, Spilled
from quant.blocks import BlockFormat, dequantize
from quant.codes import CodeStore
from quant.finite import check_weight
from quant.moments import Moments, Pair, moments_of, target


@dataclass(frozen=True)
class Settings:
    """How codes are chosen; part of a calibrated recipe's record.

    upstream: share of the earlier layers' error in the inputs that is made up for; residual: the same of the
    residual stream's own error.
    """

    gptq: gptq.Settings = field(default_factory=gptq.Settings)
    upstream: float = 1.0
    residual: float = 1.0


Formats = Callable[[Weight], BlockFormat | None]
"""How a weight is to be coded; None leaves it as it is."""


class Calibration:
    """The walk: `step` codes one layer. `layer` says how many are done."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        decoder: Decoder,
        windows: NDArray[np.int64],
        formats: Formats,
        codes: CodeStore,
        *,
        settings: Settings | None = None,
        spill: Path | None = None,
    ) -> None:
        """windows: token ids [n, length]. spill: a directory for the activations; None keeps them in memory."""
        require_plain(decoder, "calibration", "leave --calibrate away: codes are then rounded to nearest")
        self.decoder, self.codes = decoder, codes
        self.layer = 0
        self._settings = settings or Settings()
        self._formats = formats
        self._source = Streamed(checkpoint)
        self._rotary = rope_table(decoder.rope, windows.shape[1])
        count, length = windows.shape
        mixed = decoder.attention.heads * decoder.attention.head_dim

        def store(width: int) -> Activations:
            return InMemory(count, length, width) if spill is None else Spilled(count, length, width, spill)

        self.exact, self.coded = store(decoder.hidden_size), store(decoder.hidden_size)
        self._mixed = (store(mixed), store(mixed))
        for index, ids in enumerate(windows):
            hidden = self._source.gather(decoder.embedding, ids)
            self.exact.put(index, hidden)
            self.coded.put(index, hidden)

    def step(self) -> None:
        """Code the next layer and move both streams past it."""
        # What overflows is found and told by name (check_finite, gptq.factorize).
        with np.errstate(over="ignore", invalid="ignore"):
            self._step()

    def _step(self) -> None:
        layer = self.decoder.layers[self.layer]
        exact = Resident(self._source, layer)
        for weight in layer.weights():
            check_weight(weight, exact.matrix(weight))
        coded = exact.copy()
        eps, attention = self.decoder.norm_eps, self.decoder.attention
        gain = exact.vector(layer.input_norm)

        def normed() -> Iterator[Pair]:
            for _, x, z in self._streams():
                yield Pair(rms_norm(x, gain, eps), rms_norm(z, gain, eps))

        self._code(exact, coded, (layer.q, layer.k, layer.v), normed())
        for i, pair in enumerate(normed()):
            self._mixed[0].put(i, attention_mix(exact, layer, attention, pair.exact, *self._rotary))
            self._mixed[1].put(i, attention_mix(coded, layer, attention, pair.coded, *self._rotary))

        def mixed() -> Iterator[Pair]:
            for i, x, z in self._streams():
                yield self._added(i, exact, layer.o, self._mixed[0].get(i), self._mixed[1].get(i), x - z)

        self._code(exact, coded, (layer.o,), mixed())
        for i, _, z in self._streams():
            self.coded.put(i, z + coded.project(layer.o, self._mixed[1].get(i)))
        gain = exact.vector(layer.post_attention_norm)
        self._code(exact, coded, (layer.dense.gate, layer.dense.up), normed())

        def inner() -> Iterator[Pair]:
            for i, x, z in self._streams():
                inputs = swiglu_mix(exact, layer.dense, rms_norm(x, gain, eps))
                others = swiglu_mix(coded, layer.dense, rms_norm(z, gain, eps))
                yield self._added(i, exact, layer.dense.down, inputs, others, x - z)

        self._code(exact, coded, (layer.dense.down,), inner())
        # The MLP's inner activations are the widest of all: made twice rather than kept.
        for i, _, z in self._streams():
            inputs = swiglu_mix(coded, layer.dense, rms_norm(z, gain, eps))
            self.coded.put(i, z + coded.project(layer.dense.down, inputs))
            check_finite(self.exact.get(i), f"after layer {self.layer}")
        self.layer += 1

    def save(self, path: Path) -> None:
        """Both streams as they are after `layer` layers, to `path`, whole or not at all."""
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            for _, x, z in self._streams():
                file.write(np.ascontiguousarray(x).data)
                file.write(np.ascontiguousarray(z).data)
        partial.replace(path)

    def restore(self, path: Path, layer: int) -> None:
        """Go on after `layer` layers with the streams that `save` wrote there.

        Raises MachineError when the file is not what this walk would have written.
        """
        shape = self.exact.get(0).shape
        window = 4 * shape[0] * shape[1]
        if not path.is_file() or path.stat().st_size != 2 * window * self.exact.count:
            raise MachineError(
                f"{path} is not what the stopped calibration left",
                hint=f"remove {path.parent} and begin again",
            )
        with path.open("rb") as file:
            for i in range(self.exact.count):
                for stream in (self.exact, self.coded):
                    stream.put(i, np.frombuffer(file.read(window), np.float32).reshape(shape))
        self.layer = layer

    def close(self) -> None:
        for activations in (self.exact, self.coded, *self._mixed):
            activations.close()

    def _streams(self) -> Iterator[tuple[int, Floats, Floats]]:
        for i in range(self.exact.count):
            yield i, self.exact.get(i), self.coded.get(i)

    def _added(
        self,
        window: int,
        exact: Resident,
        weight: Weight,
        inputs: Floats,
        coded_inputs: Floats,
        residual: Floats,
    ) -> Pair:
        """What is known of a layer whose output is added to the streams; moves the exact stream past it."""
        moved = self.exact.get(window) + exact.project(weight, inputs)
        self.exact.put(window, moved)
        # The next norm divides by the stream's size: an error counts by its share of it. Without this, the one
        # token whose stream is a thousand times the others' (the first, in most models) would be all that counts.
        energy = np.mean(np.square(moved, dtype=np.float64), axis=-1) + self.decoder.norm_eps
        return Pair(inputs, coded_inputs, residual, (1 / energy).astype(np.float32))

    def _code(
        self,
        exact: Resident,
        coded: Resident,
        weights: tuple[Weight, ...],
        inputs: Iterator[Pair],
    ) -> None:
        """Code weights that take the same inputs."""
        moments = moments_of(inputs)  # which also moves the exact stream
        asked = [(weight, fmt) for weight in weights if (fmt := self._formats(weight)) is not None]
        if not asked:
            return
        factors = self._factors(moments, asked[0][0])
        for weight, fmt in asked:
            wanted = self._target(exact.matrix(weight), moments)
            blocks = gptq.quantize(wanted, factors, fmt, self._settings.gptq)
            self.codes.put(weight, blocks)
            coded.replace(weight, dequantize(blocks))

    def _factors(self, moments: Moments, weight: Weight) -> gptq.Factors:
        try:
            return gptq.factorize(moments.hessian, self._settings.gptq)
        except gptq.SingularError as error:
            raise CheckpointError(
                f"the calibration inputs of {weight.name} cannot be used: {error}",
                hint="the weights before it make no sense of a text: fetch or export the checkpoint again",
            ) from None

    def _target(self, matrix: Floats, moments: Moments) -> Floats:
        settings = self._settings
        return target(
            matrix,
            moments,
            upstream=settings.upstream,
            residual=settings.residual,
            damping=settings.gptq.damping,
            shrinkage=settings.gptq.shrinkage,
        )
