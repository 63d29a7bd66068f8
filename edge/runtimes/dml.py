"""onnxruntime-genai for the folders of format "dml": on DirectML where it is, else on the CPU, and `name` says which.

DirectML's attention takes the cache for empty when it is given several tokens, so a sequence begins with one append of
all that is there and goes on token by token. It does so on the CPU too: what is proven there is what Windows will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import MachineError
from edge.engine_settings import EngineSettings
from edge.runtimes.folder import read_folder
from edge.runtimes.forced import run_token
from edge.runtimes.genai import GenaiRuntime

SINGLES = 2
"""Tokens at the end of a teacher-forced sequence that run one by one."""
FEW, PROMPT_GAIN = 4, 16
"""So many new tokens always run one by one; more, when a token of a prompt costs a sixteenth of one by itself and the
whole sequence anew would cost more."""
_PROVIDER, _MOST_CONFIG = b'"dml"', 1 << 20


def accepts(path: Path) -> bool:
    file = path / "genai_config.json"
    if not file.is_file():
        return False
    with file.open("rb") as config:
        return _PROVIDER in config.read(_MOST_CONFIG)


def load(path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool) -> DmlRuntime:
    """`exact` changes nothing: everything between the weights is float16."""
    del exact
    return DmlRuntime(read_folder(path, context_length), settings)


class DmlRuntime(GenaiRuntime):
    """See `Runtime`."""

    settings = ("threads", "spinning")

    def _choose_provider(self, config: Any) -> None:
        if self._og.is_dml_available():
            self.name += " on DirectML"
            return
        config.clear_providers()
        self.name += " on the CPU, for want of DirectML"

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """All at once but for the last tokens, so that both ways are seen."""
        self.rewind(0)
        many = max(len(ids) - SINGLES, 1)
        parts = [self._every(ids[:many], min(first, many))]
        if many < len(ids):
            parts.append(self._every(ids[many:], max(first, many)))
        return np.concatenate(parts)

    def _goes_on(self, new: Sequence[int], total: int) -> bool:
        """Whether `new` runs one by one, which no end of sequence may (`run_token`)."""
        return (
            0 < len(self._ids) == self._generator.token_count()
            and len(new) <= max(FEW, total // PROMPT_GAIN)
            and not self._stop_ids.intersection(new)
        )

    def _run(self, new: Sequence[int]) -> Iterator[tuple[int, int]]:
        total = self._total(new)
        ids, start = [*self._ids, *new], len(self._ids)
        goes_on = self._goes_on(new, total)
        self._ids = []  # what an interrupt leaves: nothing that counts as cached
        try:
            if goes_on:
                for stop in range(start + 1, total + 1):
                    run_token(self._generator, ids[stop - 1], self.vocab_size)
                    self._ids = ids[:stop]
                    yield stop - 1, stop
            else:
                self._generator = self._fresh()
                self._generator.append_tokens(np.asarray(ids, np.int32).reshape(1, -1))
                self._ids = ids
                yield 0, total
        except RuntimeError as error:
            raise MachineError(f"{self.name}: {str(error).splitlines()[0]}", hint="edge doctor") from None
