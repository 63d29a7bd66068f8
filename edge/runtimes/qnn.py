"""onnxruntime-genai with Qualcomm's plugin: runs the folders of format "npu", on the NPU or its emulator.

genai pads every append to whole windows and goes on after the padding: an append is right only where it begins at a
multiple of the window and no single token ran before it (measured: after any other, logits have nothing to do with the
model). Here an append that would be neither goes token by token through the iterator, or everything is run again from
the start, whichever costs less; that also does what genai cannot, rewind.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import MachineError, UnsupportedError
from converters.onnx.npu.config import FALLBACK, NPU_STAGES, PIPELINE_TYPE, session_options
from edge.engine_settings import EngineSettings
from edge.formats import TESTED_QNN
from edge.npu import plugin
from edge.npu.binary import check_binaries
from edge.npu.socs import DEFAULT, get_socs
from edge.runtimes.forced import run_token
from edge.runtimes.protocol import Dialect
from edge.runtimes.tokenizer import FolderTokenizer, read_json, token_ids

SINGLES = 2
"""Tokens at the end of a teacher-forced sequence that go through the iterator."""
_MOST_CONFIG = 1 << 20
WINDOW_COST = 4
"""Single tokens that a window is taken to cost, an assumption: each of them reads all weights, and so does a window,
once, but computes more."""


def accepts(path: Path) -> bool:
    file = path / "genai_config.json"
    if not file.is_file():
        return False
    with file.open("rb") as config:
        return f'"{PIPELINE_TYPE}"'.encode() in config.read(_MOST_CONFIG)


def load(path: Path, *, context_length: int | None, settings: EngineSettings, exact: bool) -> QnnRuntime:
    """`exact` changes nothing: everything between the weights is float16."""
    del exact
    settings.only("onnxruntime-genai with QNN", ("threads",))
    config = read_json(path / "genai_config.json")
    try:
        model = config["model"]
        cache, vocab_size = int(model["context_length"]), int(model["vocab_size"])
        window = int(model["decoder"]["sliding_window"]["window_size"])
        stages = model["decoder"]["pipeline"][0]
        options = [stages[stage].get("session_options", {}) for stage in NPU_STAGES]
        compiled = all("provider_options" in each for each in options)
        allow_cpu = any(each.get(FALLBACK) == "0" for each in options)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnsupportedError(
            f"{path / 'genai_config.json'}: {error!r} is missing or no number", hint=f"edge inspect {path}"
        ) from None
    limit = cache - window
    if context_length is not None and not 0 < context_length <= limit:
        raise UnsupportedError(
            f"a context of {context_length} tokens is asked for; {path.name} allows 1 to {limit}",
            hint=f"--context {limit}",
        )
    plugin.register("onnxruntime_genai")
    if compiled:
        check_binaries(path)
    shape = _Shape(context_length or limit, cache, window, vocab_size)
    stop_ids = frozenset(token_ids(model.get("eos_token_id")))
    return QnnRuntime(path, shape, stop_ids, compiled=compiled, allow_cpu=allow_cpu)


@dataclass(frozen=True)
class _Shape:
    """Usable tokens, positions of the cache, tokens of a window, rows of logits."""

    context_length: int
    cache: int
    window: int
    vocab_size: int


class QnnRuntime:
    """See `Runtime`. `_counted`: tokens as genai counts them, padding included."""

    def __init__(
        self, path: Path, shape: _Shape, stop_ids: frozenset[int], *, compiled: bool, allow_cpu: bool
    ) -> None:
        import onnxruntime_genai as og

        emulated = " (emulated NPU)" if platform.machine() in ("x86_64", "AMD64") else ""
        self.name = f"onnxruntime-genai {og.__version__}, onnxruntime-qnn {TESTED_QNN}{emulated}"
        self.context_length = shape.context_length
        self.vocab_size = shape.vocab_size
        self._og = og
        self._shape = shape
        self._stop_ids = stop_ids
        self._tokenizer = FolderTokenizer(path)
        self._ids: list[int] = []
        self._counted = 0
        self._singles_ran = False
        self._generator: Any = None
        try:
            with plugin.stdout_kept_clean():
                self._model: Any = _model(og, path, compiled=compiled, allow_cpu=allow_cpu)
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise UnsupportedError(
                f"{path}: {self.name} cannot load it: {cause}", hint=f"edge inspect {path}"
            ) from None

    @property
    def position(self) -> int:
        return len(self._ids)

    @property
    def room(self) -> int:
        return self.context_length - self.position

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        last = np.empty(0, np.float32)
        for rows in self._run(ids):
            last = rows[-1]
        return last.copy()

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._last_rows(ids, len(ids))

    def teacher_forced(self, ids: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """In whole windows, and the last tokens one by one, so that both stages are seen."""
        self.rewind(0)
        many = max(len(ids) - SINGLES, 1)
        logits = self._last_rows(ids[:many], max(many - first, 0))
        if many == len(ids):
            return logits
        last = self._last_rows(ids[many:], len(ids) - max(many, first), one_by_one=True)
        return np.concatenate([logits, last])

    def rewind(self, position: int) -> None:
        if not 0 <= position <= len(self._ids):
            raise ValueError(f"rewind to {position} of {len(self._ids)}")
        if position < len(self._ids):
            del self._ids[position:]
            self._generator = None  # genai cannot take back: the next append runs again what is kept

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.encode(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)

    def dialect(self) -> Dialect:
        return self._tokenizer.dialect(self._stop_ids)

    def close(self) -> None:
        self._generator = self._model = None

    def _last_rows(self, ids: Sequence[int], count: int, *, one_by_one: bool = False) -> NDArray[np.float32]:
        """Feed `ids`; logits of the last `count` positions."""
        logits = np.empty((count, self.vocab_size), np.float32)
        total = len(self._ids) + len(ids)
        for rows in self._run(ids, one_by_one=one_by_one):
            first = len(self._ids) - len(rows) - (total - count)
            if first + len(rows) > 0:
                logits[max(first, 0) : first + len(rows)] = rows[max(-first, 0) :]
        return logits

    def _run(self, new: Sequence[int], *, one_by_one: bool = False) -> Iterator[NDArray[np.float32]]:
        """Feed `new`; yields logits of the positions run, in order, which may begin before `new`."""
        total = len(self._ids) + len(new)
        if not new or total > self.context_length:
            raise UnsupportedError(
                f"{len(self._ids)} + {len(new)} tokens do not fit a context of {self.context_length}",
                hint="--context N with a larger N, or a shorter prompt",
            )
        ids, start = [*self._ids, *new], len(self._ids)
        single = self._singles(len(new))
        if one_by_one and self._generator and self._counted + len(new) <= self._shape.cache:
            single = len(new)
        if single and self._stop_ids.intersection(new[:single]):
            single = None  # after one the generator is done, and runs padding in place of what it is given
        self._ids = []  # what an interrupt leaves: nothing that counts as cached
        try:
            if single is None:
                self._fresh()
                start = single = 0
            for position in range(start, start + single):
                yield self._one(ids[: position + 1])
            for position in range(start + single, total, self._shape.window):
                yield self._window(ids[: min(total, position + self._shape.window)], position)
        except RuntimeError as error:
            self._generator = None
            raise MachineError(f"{self.name}: {str(error).splitlines()[0]}", hint="edge doctor") from None

    def _singles(self, count: int) -> int | None:
        """How many of `count` new tokens to run one by one before whole windows; None: better begin anew."""
        window, start = self._shape.window, len(self._ids)
        if self._generator is None or start == 0:
            return None
        windows = 0 if self._singles_ran or start % window else -(-count // window)
        single = 0 if windows else count
        beyond = self._counted + single + windows * window > self._shape.cache
        anew = WINDOW_COST * -(-(start + count) // window)
        return None if beyond or single + WINDOW_COST * windows > anew else single

    def _fresh(self) -> None:
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=self._shape.cache, do_sample=False, batch_size=1)
        self._generator = self._og.Generator(self._model, parameters)
        self._counted, self._singles_ran = 0, False

    def _window(self, ids: list[int], start: int) -> NDArray[np.float32]:
        """Positions [start, len(ids)), the last window padded."""
        self._generator.append_tokens(np.asarray(ids[start:], np.int32).reshape(1, -1))
        self._ids = ids
        self._counted += self._shape.window
        logits: NDArray[np.float32] = self._generator.get_output("logits")[0][: len(ids) - start]
        return logits.astype(np.float32, copy=False)

    def _one(self, ids: list[int]) -> NDArray[np.float32]:
        """One token through the iterator."""
        logits = run_token(self._generator, ids[-1], self.vocab_size)
        self._ids = ids
        self._counted += 1
        self._singles_ran = True
        return logits


def _model(og: Any, path: Path, *, compiled: bool, allow_cpu: bool) -> Any:
    config = og.Config(str(path))
    if compiled:
        return og.Model(config)
    (soc,) = get_socs([DEFAULT])
    with plugin.graph_options(soc) as options:
        config.overlay(json.dumps(_overlay(options, allow_cpu=allow_cpu)))
        return og.Model(config)


def _overlay(options: Mapping[str, str], *, allow_cpu: bool) -> dict[str, Any]:
    chosen = session_options(options, allow_cpu=allow_cpu)
    stages = {stage: {"session_options": chosen} for stage in NPU_STAGES}
    return {"model": {"decoder": {"pipeline": [stages]}}}
