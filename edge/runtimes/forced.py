"""onnxruntime-genai runs in its token generator only what it chose itself: so it is made to choose."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEVER, _SURELY = -1e4, 1e4
"""Logits that leave a greedy search no doubt, and are no infinity in any float type."""


def run_token(generator: Any, token: int, vocab_size: int) -> NDArray[np.float32]:
    """Run one token after those that the generator holds; its logits, float32 [1, vocab_size].

    Not for a token that ends a sequence: the generator would be done, and run padding in place of what follows.
    """
    forced = np.full((1, vocab_size), _NEVER, np.float32)
    forced[0, token] = _SURELY
    generator.get_logits()
    generator.set_logits(forced)
    generator.generate_next_token()
    return np.asarray(generator.get_logits(), dtype=np.float32).reshape(1, -1)
