"""onnxruntime-genai: runs a folder with genai_config.json.

We append tokens and read logits ourselves, so genai's own treatment of LongRoPE (inside its token generator)
never runs; `append` does it here. A cache made with short factors is wrong once the total length passes
the original context (measured on a random model: logits off by 3), and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converters.adapter_files import find_adapters
from converters.errors import MachineError, UnsupportedError
from edge.engine_settings import EngineSettings
from edge.runtimes.adapters import get_adapter
from edge.runtimes.folder import Folder, read_folder
from edge.runtimes.longrope import room
from edge.runtimes.protocol import Dialect
from edge.runtimes.tokenizer import FolderTokenizer

_LOGITS_BYTES = 128 << 20
"""genai keeps float32 logits of every position of one append: prompts go in chunks of about this much."""
_MAX_CHUNK = 512


def accepts(path: Path) -> bool:
    return (path / "genai_config.json").is_file()


def load(path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool) -> GenaiRuntime:
    """`exact` changes nothing: the KV cache has the type that the graph says (float32 on the CPU)."""
    del exact
    return GenaiRuntime(read_folder(path, context_length), settings)


def _overlay(folder: Folder, settings: EngineSettings) -> dict[str, Any]:
    """What is put over genai_config.json. Options that genai does not know itself go to onnxruntime as text.

    Padding tokens that end a prompt would be masked (measured on a random model: logits off by 4), and one sequence
    needs none: the padding token is one that no prompt can hold.
    """
    options: dict[str, Any] = {}
    if settings.threads is not None:
        options["intra_op_num_threads"] = settings.threads
    if settings.spinning is not None:
        options["session.intra_op.allow_spinning"] = str(int(settings.spinning))
    return {"model": {"pad_token_id": folder.vocab_size, "decoder": {"session_options": options}}}


class GenaiRuntime:
    """See `Runtime`."""

    settings: ClassVar[tuple[str, ...]] = ("threads", "batch", "spinning")

    def __init__(self, folder: Folder, settings: EngineSettings) -> None:
        import onnxruntime_genai as og

        settings.only("onnxruntime-genai", self.settings)
        self.name = f"onnxruntime-genai {og.__version__}"
        self.context_length = folder.context_length
        self.vocab_size = folder.vocab_size
        self._og = og
        self._stop_ids = folder.stop_ids
        self._tokenizer = FolderTokenizer(folder.path)
        self._switch = folder.switch
        self._chunk = max(16, min(settings.batch or _MAX_CHUNK, _LOGITS_BYTES // (4 * folder.vocab_size)))
        self._ids: list[int] = []
        self._long = False
        self.adapter: str | None = None
        self._files = find_adapters(folder.path)
        self._path = folder.path
        self._loaded: Any = None
        self._in_memory: set[str | None] = set()
        try:
            config = og.Config(str(folder.path))
            self._choose_provider(config)
            config.overlay(json.dumps(_overlay(folder, settings)))
            self._model: Any = og.Model(config)
            self._generator: Any = self._fresh()
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise UnsupportedError(
                f"{folder.path}: {self.name} cannot load it: {cause}", hint=f"edge inspect {folder.path}"
            ) from None

    def _choose_provider(self, config: Any) -> None:
        """What runs the graph is what the folder's configuration names."""

    def _fresh(self) -> Any:
        """A generator with an empty cache."""
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=self.context_length, do_sample=False, batch_size=1)
        return self._og.Generator(self._model, parameters)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._files)

    def use_adapter(self, name: str | None) -> None:
        file = None if name is None else get_adapter(self._files, name, self._path)
        try:
            self._generator, self._ids = self._fresh(), []
            if file is not None:
                if self._loaded is None:
                    self._loaded = self._og.Adapters(self._model)
                if name not in self._in_memory:
                    self._loaded.load(str(file), name)
                    self._in_memory.add(name)
                self._generator.set_active_adapter(self._loaded, name)
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise UnsupportedError(
                f"adapter {name}: {self.name} cannot use it: {cause}",
                hint="edge verify BUNDLE tells whether it is whole",
            ) from None
        self.adapter = name

    @property
    def position(self) -> int:
        return len(self._ids)

    @property
    def room(self) -> int:
        return room(self.position, self.context_length, self._switch)

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        for _ in self._run(ids):
            pass
        last: NDArray[np.float32] = np.asarray(self._generator.get_logits(), dtype=np.float32).reshape(-1)
        return last

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._every(ids, self.position)

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        self.rewind(0)
        return self._every(ids, first)

    def _every(self, new: Sequence[int], first: int) -> NDArray[np.float32]:
        """Feed `new`; logits of every position from `first` on."""
        logits = np.empty((self.position + len(new) - first, self.vocab_size), np.float32)
        for start, stop in self._run(new):
            begin = max(start, first)
            if begin < stop:
                chunk = self._generator.get_output("logits")[0]
                logits[begin - first : stop - first] = chunk[begin - start :]
        return logits

    def _run(self, new: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Feed `new` in chunks; yields the [start, stop) positions of each chunk after it ran."""
        total = self._total(new)
        long = self._switch is not None and total > self._switch
        ids = [*self._ids, *new]
        start = len(self._ids)
        if long != self._long or start == 0:
            start = 0
            self._long = long
        self._ids = []  # what an interrupt leaves: nothing that counts as cached
        try:
            if self._generator.token_count() != start:
                self._generator.rewind_to(start)
            while start < total:
                # The graph picks its factors by the length so far: the first chunk must be past the switch.
                least = self._switch + 1 if long and start == 0 and self._switch is not None else self._chunk
                stop = min(total, start + max(self._chunk, least))
                self._generator.append_tokens(np.asarray(ids[start:stop], np.int32).reshape(1, -1))
                self._ids = ids[:stop]
                yield start, stop
                start = stop
        except RuntimeError as error:
            raise MachineError(f"{self.name}: {error}", hint="edge doctor") from None

    def _total(self, new: Sequence[int]) -> int:
        """Tokens in the cache once `new` are in. UnsupportedError when they are too many."""
        total = len(self._ids) + len(new)
        if not new or total > self.context_length:
            raise UnsupportedError(
                f"{len(self._ids)} + {len(new)} tokens do not fit a context of {self.context_length}",
                hint="--context N with a larger N, or a shorter prompt",
            )
        return total

    def rewind(self, position: int) -> None:
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"rewind to {position} of {len(self._ids)}")
        del self._ids[position:]

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def dialect(self) -> Dialect:
        return self._tokenizer.dialect(self._stop_ids)

    def close(self) -> None:
        self._generator = self._loaded = self._model = None
