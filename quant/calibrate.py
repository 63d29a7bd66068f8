"""Calibration: the reference evaluator walked over a text, layer by layer, and every linear layer coded on the way.

Two residual streams go through the model side by side: the checkpoint's own, and that of the model as it is
quantized so far. A linear layer W with float inputs x and quantized inputs z is coded for

    min_Q  sum over tokens of |W x + r - Q z|^2

so that it also makes up for what the layers before it lost (r is the difference of the two residual streams where
the layer's output is added to them, and nothing otherwise). With H = sum z z^T, C = sum x z^T and B = sum r z^T the
best real-valued answer is W + (W (C - H) + B) H^-1, and `quant.gptq` rounds that in the metric H.

In memory: the weights of one layer (float32, twice), the residual streams (or a file, `spill`), one Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder, Layer, Weight
from converters.errors import CheckpointError, MachineError
from converters.forward import Floats, attention_mix, rms_norm, rope_table, swiglu_mix
from converters.reference import Resident, Streamed, check_finite
from quant import gptq
from quant.activations import Activations, InMemory, Spilled
from quant.blocks import BlockFormat, dequantize
from quant.codes import CodeStore


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
        """windows: token ids [n, length]. spill: a directory for the activations, None keeps them in memory."""
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
        layer = self.decoder.layers[self.layer]
        exact = Resident(self._source, layer)
        coded = exact.copy()
        eps, attention = self.decoder.norm_eps, self.decoder.attention
        gain = exact.vector(layer.input_norm)

        def normed() -> Iterator[_Pair]:
            for _, x, z in self._streams():
                yield _Pair(rms_norm(x, gain, eps), rms_norm(z, gain, eps))

        self._code(exact, coded, (layer.q, layer.k, layer.v), normed())
        for i, pair in enumerate(normed()):
            self._mixed[0].put(i, attention_mix(exact, layer, attention, pair.exact, *self._rotary))
            self._mixed[1].put(i, attention_mix(coded, layer, attention, pair.coded, *self._rotary))

        def mixed() -> Iterator[_Pair]:
            for i, x, z in self._streams():
                yield _Pair(self._mixed[0].get(i), self._mixed[1].get(i), x - z)

        self._code(exact, coded, (layer.o,), mixed())
        for i, x, z in self._streams():
            self.exact.put(i, x + exact.project(layer.o, self._mixed[0].get(i)))
            self.coded.put(i, z + coded.project(layer.o, self._mixed[1].get(i)))
        gain = exact.vector(layer.post_attention_norm)
        self._code(exact, coded, (layer.gate, layer.up), normed())
        # The MLP's inner activations are the widest of all: made twice rather than kept.
        self._code(exact, coded, (layer.down,), self._inner(exact, coded, layer, gain))
        for (i, x, z), pair in zip(self._streams(), self._inner(exact, coded, layer, gain), strict=True):
            self.exact.put(i, x + exact.project(layer.down, pair.exact))
            self.coded.put(i, z + coded.project(layer.down, pair.coded))
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

    def _inner(self, exact: Resident, coded: Resident, layer: Layer, gain: Floats) -> Iterator[_Pair]:
        eps = self.decoder.norm_eps
        for _, x, z in self._streams():
            yield _Pair(
                swiglu_mix(exact, layer, rms_norm(x, gain, eps)),
                swiglu_mix(coded, layer, rms_norm(z, gain, eps)),
                x - z,
            )

    def _code(
        self, exact: Resident, coded: Resident, weights: tuple[Weight, ...], inputs: Iterator[_Pair]
    ) -> None:
        """Code weights that take the same inputs."""
        formats = [self._formats(weight) for weight in weights]
        if not any(formats):
            return
        moments = _Moments.of(inputs)
        try:
            factors = gptq.factorize(moments.hessian, self._settings.gptq)
        except gptq.SingularError as error:
            raise CheckpointError(
                f"the calibration inputs of {weights[0].name} cannot be used: {error}",
                hint="give a longer and more varied text to --calibrate",
            ) from None
        for weight, fmt in zip(weights, formats, strict=True):
            if fmt is not None:
                target = self._target(exact.matrix(weight), moments)
                blocks = gptq.quantize(target, factors, fmt, self._settings.gptq)
                self.codes.put(weight, blocks)
                coded.replace(weight, dequantize(blocks))

    def _target(self, matrix: Floats, moments: _Moments) -> Floats:
        """The real-valued weight that best makes up for what was lost before."""
        settings = self._settings
        missing = settings.upstream * (matrix @ (moments.cross - moments.hessian))
        if moments.residual is not None:
            missing += settings.residual * moments.residual
        damped = moments.hessian.astype(np.float64)
        diagonal = np.einsum("ii->i", damped)
        diagonal += settings.gptq.damping * diagonal.mean()
        correction: Floats = np.linalg.solve(damped, missing.T.astype(np.float64)).T.astype(np.float32)
        return matrix + correction


@dataclass(frozen=True)
class _Pair:
    """Inputs of a linear layer in both streams [length, columns], and where its output is added the difference
    of the residual streams [length, rows]."""

    exact: Floats
    coded: Floats
    residual: Floats | None = None


@dataclass
class _Moments:
    """Means over tokens: hessian z z^T, cross x z^T [columns, columns], residual r z^T [rows, columns] or None."""

    hessian: Floats
    cross: Floats
    residual: Floats | None

    @classmethod
    def of(cls, pairs: Iterator[_Pair]) -> _Moments:
        total: _Moments | None = None
        tokens = 0
        for pair in pairs:
            tokens += len(pair.coded)
            part = cls(
                pair.coded.T @ pair.coded,
                pair.exact.T @ pair.coded,
                None if pair.residual is None else pair.residual.T @ pair.coded,
            )
            total = part if total is None else total.add(part)
        assert total is not None
        total.hessian /= tokens
        total.cross /= tokens
        if total.residual is not None:
            total.residual /= tokens
        return total

    def add(self, other: _Moments) -> _Moments:
        self.hessian += other.hessian
        self.cross += other.cross
        if self.residual is not None and other.residual is not None:
            self.residual += other.residual
        return self
