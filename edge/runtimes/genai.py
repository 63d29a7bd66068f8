"""onnxruntime-genai: runs a folder with genai_config.json.

We append tokens and read logits ourselves, so genai's own treatment of LongRoPE (inside its token generator)
never runs; `edge.runtimes.chunked` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converters.adapter_files import find_adapters
from converters.errors import MachineError, UnsupportedError
from edge.engine_settings import EngineSettings
from edge.runtimes.adapters import get_adapter
from edge.runtimes.chunked import Chunked
from edge.runtimes.folder import Folder, read_folder
from edge.runtimes.protocol import Dialect
from edge.runtimes.tokenizer import FolderTokenizer


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


class GenaiRuntime(Chunked):
    """See `Runtime`."""

    settings: ClassVar[tuple[str, ...]] = ("threads", "batch", "spinning")

    def __init__(self, folder: Folder, settings: EngineSettings) -> None:
        import onnxruntime_genai as og

        settings.only("onnxruntime-genai", self.settings)
        self.name = f"onnxruntime-genai {og.__version__}"
        super().__init__(folder.context_length, folder.vocab_size, folder.switch, settings.batch)
        self._og = og
        self._stop_ids = folder.stop_ids
        self._tokenizer = FolderTokenizer(folder.path)
        self._recurrent = folder.recurrent
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

    def _go_back(self, position: int) -> int:
        with self._telling():
            if self._generator.token_count() == position:
                return position
            if self._recurrent:
                # Of a state only the last one is there, and of a windowed cache the last tokens.
                self._generator = self._fresh()
                return 0
            self._generator.rewind_to(position)
            return position

    def _feed(self, ids: Sequence[int]) -> None:
        with self._telling():
            self._generator.append_tokens(np.asarray(ids, np.int32).reshape(1, -1))

    def _last(self) -> NDArray[np.float32]:
        return np.asarray(self._generator.get_logits(), dtype=np.float32).reshape(-1)

    def _all(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._generator.get_output("logits")[0]
        return logits

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise MachineError(f"{self.name}: {error}", hint="edge doctor") from None

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def dialect(self) -> Dialect:
        return self._tokenizer.dialect(self._stop_ids)

    def close(self) -> None:
        self._generator = self._loaded = self._model = None
