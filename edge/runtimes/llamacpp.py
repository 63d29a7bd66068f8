"""llama.cpp through llama-cpp-python's low-level C API: runs a .gguf file.

llama.cpp chooses LongRoPE factors once, when a context is made: long ones if its capacity (a multiple of 256)
is over the original context, whatever the length of the sequence (llama-model.cpp, get_rope_factors). So a
LongRoPE model gets a short context up to the original length, and beyond it a long one that is filled anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.adapter_files import find_adapters
from converters.errors import CheckpointError, MachineError, UnsupportedError
from edge import machine
from edge.engine_settings import KV_TYPES, EngineSettings
from edge.formats import INSTALL_LLAMA_CPP
from edge.runtimes import llamacpp_adapters, llamacpp_library, llamacpp_state
from edge.runtimes.adapters import get_adapter
from edge.runtimes.gguf_vocabulary import GgufVocabulary
from edge.runtimes.longrope import room
from edge.runtimes.protocol import DEFAULT_CONTEXT, Dialect

_BATCH = 512
_PAD = 256
_SETTINGS = ("threads", "prefill_threads", "batch", "kv_type", "flash_attention", "repack")


def accepts(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def load(path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool) -> LlamaCppRuntime:
    settings.only("llama.cpp", _SETTINGS)
    try:
        import llama_cpp
    except ImportError:
        raise UnsupportedError(
            f"{path.name}: running a GGUF needs llama-cpp-python", hint=INSTALL_LLAMA_CPP
        ) from None
    return LlamaCppRuntime(llama_cpp, path, context_length, settings, exact)


class LlamaCppRuntime:
    """See `Runtime`."""

    def __init__(
        self, library: Any, path: Path, context_length: int | None, settings: EngineSettings, exact: bool
    ) -> None:
        self._c = library
        self.name = f"llama.cpp (llama-cpp-python {library.__version__})"
        llamacpp_library.start(library)
        self._context: Any = None
        self._batch: Any = None
        params = library.llama_model_default_params()
        if settings.repack is not None:
            params.use_extra_bufts = settings.repack
        self._model: Any = library.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise CheckpointError(f"{path}: {self.name} cannot load it", hint=f"edge inspect {path}")
        self._vocabulary = GgufVocabulary(library, self._model, path)
        self.vocab_size = self._vocabulary.size
        trained: int = library.llama_model_n_ctx_train(self._model)
        self.context_length = min(trained, DEFAULT_CONTEXT) if context_length is None else context_length
        if not 0 < self.context_length <= trained:
            raise UnsupportedError(
                f"a context of {context_length} tokens is asked for; {path.name} allows 1 to {trained}",
                hint=f"--context {trained}",
            )
        self._switch = self._switch_length(path)
        if exact:
            settings = replace(settings, kv_type="f32", flash_attention=False)
        self._settings = settings
        self._size = settings.batch or _BATCH
        # llama.cpp's own default is four threads, on any machine
        self._threads = settings.threads or machine.cores()
        self._ids: list[int] = []
        self._long: bool | None = None
        self.adapter: str | None = None
        self.between: Callable[[], None] = lambda: None
        self._path = path
        self._files = find_adapters(path)
        self._loaded: dict[str, Any] = {}
        self._batch = library.llama_batch_init(self._size, 0, 1)

    def _switch_length(self, path: Path) -> int | None:
        """Original context of a LongRoPE model, if this runtime's context goes beyond it."""
        architecture = self._vocabulary.metadata("general.architecture")
        value = self._vocabulary.metadata(f"{architecture}.rope.scaling.original_context_length")
        kind = self._vocabulary.metadata(f"{architecture}.rope.scaling.type")
        if value is None or kind not in (None, "longrope", "none") or int(value) >= self.context_length:
            return None
        if int(value) % _PAD:
            raise UnsupportedError(
                f"{path.name}: LongRoPE switches at {value}; llama.cpp switches at multiples of {_PAD} only",
                hint=f"--context {int(value) // _PAD * _PAD or int(value)}",
            )
        return int(value)

    def _open_context(self, long: bool) -> None:
        c, settings = self._c, self._settings
        if self._context is not None:
            c.llama_free(self._context)
            self._context = None
        params = c.llama_context_default_params()
        params.n_ctx = self._switch if self._switch is not None and not long else self.context_length
        params.n_batch = params.n_ubatch = self._size
        params.swa_full = True  # a windowed cache could not be rewound
        params.no_perf = True
        if settings.kv_type is not None:
            params.type_k = params.type_v = KV_TYPES[settings.kv_type]
        if settings.flash_attention is not None:
            params.flash_attn_type = int(settings.flash_attention)
        params.n_threads = self._threads
        params.n_threads_batch = settings.prefill_threads or params.n_threads
        self._context = c.llama_init_from_model(self._model, params)
        if not self._context:
            self._context = None
            raise MachineError(
                f"{self.name}: no memory for a context of {params.n_ctx} tokens",
                hint="--context N with a smaller N",
            )
        self._memory = c.llama_get_memory(self._context)
        self._long = long
        if self.adapter is not None:
            llamacpp_adapters.activate(c, self._context, self._loaded[self.adapter])

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._files)

    def use_adapter(self, name: str | None) -> None:
        if name is not None and name not in self._loaded:
            file = get_adapter(self._files, name, self._path)
            self._loaded[name] = llamacpp_adapters.read(self._c, self._model, file)
        # A context made before an adapter was read has no room for its products: the next run makes one.
        self.adapter, self._ids, self._long = name, [], None

    @property
    def position(self) -> int:
        return len(self._ids)

    @property
    def room(self) -> int:
        return room(self.position, self.context_length, self._switch)

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        count = 0
        for start, stop in self._run(ids, self.position + len(ids) - 1):
            count = stop - start
        last: NDArray[np.float32] = self._logits(count - 1, 1)[0]
        return last

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._every(ids, self.position)

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        self.rewind(0)
        return self._every(ids, first)

    def _every(self, new: Sequence[int], first: int) -> NDArray[np.float32]:
        """Feed `new`; logits of every position from `first` on."""
        logits = np.empty((self.position + len(new) - first, self.vocab_size), np.float32)
        for start, stop in self._run(new, first):
            begin = max(start, first)
            if begin < stop:
                logits[begin - first : stop - first] = self._logits(begin - start, stop - begin)
        return logits

    def _logits(self, first: int, count: int) -> NDArray[np.float32]:
        pointer: Any = self._c.llama_get_logits_ith(self._context, first)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(pointer, (count, self.vocab_size)).copy()
        return logits

    def _run(self, new: Sequence[int], wanted: int) -> Iterator[tuple[int, int]]:
        """Decode `new` in batches; yields the [start, stop) positions of each batch after it ran.

        Logits are computed from position `wanted` on.
        """
        total = len(self._ids) + len(new)
        if not new or total > self.context_length:
            raise UnsupportedError(
                f"{len(self._ids)} + {len(new)} tokens do not fit a context of {self.context_length}",
                hint="--context N with a larger N, or a shorter prompt",
            )
        ids, start = [*self._ids, *new], len(self._ids)
        long = self._switch is not None and total > self._switch
        self._ids = []  # what an interrupt leaves: nothing that counts as cached
        if long != self._long:
            self._open_context(long)
            start = 0
        self._c.llama_memory_seq_rm(self._memory, 0, start, -1)
        while start < total:
            stop = min(total, start + self._size)
            self._fill(ids, start, stop, wanted)
            code = self._c.llama_decode(self._context, self._batch)
            if code != 0:
                raise MachineError(f"{self.name}: llama_decode gave {code}", hint="edge doctor")
            self._ids = ids[:stop]
            self.between()
            yield start, stop
            start = stop

    def _fill(self, ids: list[int], start: int, stop: int, wanted: int) -> None:
        batch = self._batch
        batch.n_tokens = stop - start
        for i in range(stop - start):
            batch.token[i] = ids[start + i]
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = start + i >= wanted

    def rewind(self, position: int) -> None:
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"rewind to {position} of {len(self._ids)}")
        del self._ids[position:]

    @property
    def state_key(self) -> str:
        settings = self._settings.to_data() | {"threads": self._threads, "adapter": self.adapter}
        return f"{self.name} {json.dumps(settings, sort_keys=True)}"

    def export_state(self) -> bytes:
        self._c.llama_memory_seq_rm(self._memory, 0, self.position, -1)
        return llamacpp_state.take(self._c, self._context)

    def import_state(self, ids: Sequence[int], data: bytes) -> bool:
        long = self._switch is not None and len(ids) > self._switch
        self._ids = []
        if long != self._long:
            self._open_context(long)
        self._c.llama_memory_clear(self._memory, False)
        if not llamacpp_state.put(self._c, self._context, data, len(ids)):
            self._c.llama_memory_clear(self._memory, False)
            return False
        self._ids = list(ids)
        return True

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._vocabulary.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.piece(token, special=False)

    def dialect(self) -> Dialect:
        return self._vocabulary.dialect()

    def close(self) -> None:
        if self._context is not None:
            self._c.llama_free(self._context)
            self._context = None
        if self._batch is not None:
            self._c.llama_batch_free(self._batch)
            self._batch = None
        for adapter in self._loaded.values():
            self._c.llama_adapter_lora_free(adapter)
        self._loaded = {}
        if self._model:
            self._c.llama_model_free(self._model)
            self._model = None
