"""Change the sample rate of a recording of any length, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of the low-pass: zero crossings each side, and the shape of its Kaiser window (as scipy.signal.resample_poly).
_CROSSINGS = 10
_BETA = 5.0


def resample(blocks: Iterable[Floats], source: int, target: int) -> Iterator[Floats]:
    """The samples at `target` Hz of blocks at `source` Hz, `target <= source`; ceil(n * target / source) in all.

    A windowed-sinc low-pass in polyphase form, zeros before the start and after the end. For a whole factor it is
    what `resample_poly(x, 1, factor)` gives. Memory: a block, twenty times its output, and up to 20 * source taps.
    """
    divisor = math.gcd(source, target)
    up, down = target // divisor, source // divisor
    half = _CROSSINGS * down
    phases = _phases(half, up, down)
    reach = phases.shape[1]
    # `held` starts at input sample `start`; those before sample 0 are zeros.
    held, start, read, made = np.zeros(reach - 1), 1 - reach, 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        read += len(block)
        # Output m stands at m * down + half of the upsampled signal, delayed by the filter's half length.
        ready = max(made, ((read * up - 1) - half) // down + 1)
        yield _filter(held, start, made, ready, up, down, half, phases)
        made = ready
        drop = max(0, (made * down + half) // up - (reach - 1) - start)
        held, start = held[drop:], start + drop
    total = -(-read * up // down)
    held = np.concatenate([held, np.zeros((total * down + half) // up + 1 - start)])
    yield _filter(held, start, made, total, up, down, half, phases)


def _phases(half: int, up: int, down: int) -> Floats:
    """The low-pass cut into one filter a phase: [up, taps], gain 1 for a constant."""
    at = np.arange(-half, half + 1)
    low_pass = np.sinc(at / down) * np.kaiser(len(at), _BETA)
    taps = np.zeros(-(-len(at) // up) * up)
    taps[: len(at)] = low_pass * (up / low_pass.sum())
    return taps.reshape(-1, up).T


def _filter(
    held: Floats, start: int, first: int, last: int, up: int, down: int, half: int, phases: Floats
) -> Floats:
    position = np.arange(first, last) * down + half
    newest = position // up - start
    past = held[newest[:, None] - np.arange(phases.shape[1])]
    mixed: Floats = np.einsum("nt,nt->n", past, phases[position % up])
    return mixed
