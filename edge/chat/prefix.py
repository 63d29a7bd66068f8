"""The prefix cache: what every conversation with one system message starts with is read once, not every time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from edge.chat.state_store import StateStore
from edge.runtimes.protocol import Runtime, Stateful

SHORTEST = 128
"""Tokens; reading fewer takes no longer than a person notices."""


class PrefixCache:
    """`model()` is a hash of the model's files; it is asked for only when there is something to look up.

    Without a store nothing is kept, but the prefix is still read by itself: engines may round a token by what
    is read with it, and an answer must be the same with the cache as without.
    """

    def __init__(
        self, store: StateStore | None, model: Callable[[], str], note: Callable[[str], None]
    ) -> None:
        self._store = store
        self._model = model
        self._note = note

    def serves(self, runtime: Runtime, ids: Sequence[int]) -> bool:
        """Whether `fill` is worth while: `ids` are enough, and the engine can save its state."""
        return len(ids) >= SHORTEST and isinstance(runtime, Stateful)

    def fill(self, runtime: Runtime, ids: Sequence[int]) -> int:
        """Let the cache of `runtime` hold `ids`: from disk, or by reading them and keeping the state.

        How many tokens had to be read: 0 or all.
        """
        assert isinstance(runtime, Stateful)
        key = self.key(runtime, ids) if self._store else ""
        data = self._store.load(key) if self._store else None
        if data is not None:
            if runtime.import_state(ids, data):
                return 0
            self._note(f"prefix cache: {runtime.name} refuses the state that was kept; it is made anew")
        runtime.rewind(0)
        runtime.append(ids)
        if self._store:
            self._store.save(key, runtime.export_state())
        return len(ids)

    def key(self, runtime: Stateful, ids: Sequence[int]) -> str:
        """SHA-256, as hex, of everything that the state depends on."""
        parts = [self._model(), runtime.state_key, [int(i) for i in ids]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    same = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        same += 1
    return same
