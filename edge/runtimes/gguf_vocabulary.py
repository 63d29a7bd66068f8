"""What a GGUF file says of its vocabulary, through llama.cpp: text to ids, ids to bytes, dialect."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError, MachineError, UnsupportedError
from converters.gguf.long_words import LONGEST, too_long
from edge.runtimes.protocol import Dialect
from edge.runtimes.tokenizer import END_TEXTS


class GgufVocabulary:
    """Of a loaded model; lives no longer than that. `library` is the module llama_cpp."""

    def __init__(self, library: Any, model: Any, path: Path) -> None:
        self._c = library
        self._model = model
        self._vocab = library.llama_model_get_vocab(model)
        self.size: int = library.llama_vocab_n_tokens(self._vocab)
        self._kind = self.metadata("tokenizer.ggml.model") or ""
        self._pre = self.metadata("tokenizer.ggml.pre") or ""
        self._strip = self._stripper(path)

    def metadata(self, key: str) -> str | None:
        """A key of the file as text; None when it is not there. Arrays are not given."""
        buffer = ctypes.create_string_buffer(1)
        length = self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, 1)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, length + 1)
        return buffer.raw[:length].decode("utf-8", "replace")

    def _stripper(self, path: Path) -> Callable[[str, bool], str]:
        """Takes the white space away that special tokens swallow: our own files say so, llama.cpp does not."""
        from converters.gguf import strip

        try:
            rules = strip.from_text(self.metadata(strip.KEY) or "[]")
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}", hint=f"edge inspect {path}") from None
        return lambda text, special: strip.apply(text, rules, special=special)

    def encode(self, text: str, *, special: bool) -> list[int]:
        text = self._strip(text, special)
        if too_long(text, model=self._kind, pre=self._pre):
            raise UnsupportedError(
                f"the text runs on for over {LONGEST} characters without a break: llama.cpp would crash on it",
                hint="break the text up, or use the ONNX variant",
            )
        data = text.encode("utf-8", "replace")  # a lone surrogate, from a pipe that was no UTF-8, becomes "?"
        capacity = len(data) + 8
        tokens = (self._c.llama_token * capacity)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), tokens, capacity, False, special)
        if count < 0:
            raise MachineError(f"llama.cpp: cannot tokenize {len(data)} bytes", hint="a shorter prompt")
        return list(tokens[:count])

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of a token; those of special tokens only when `special`, else b""."""
        buffer = ctypes.create_string_buffer(64)
        length = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(length, 0)]

    def dialect(self) -> Dialect:
        c, vocab = self._c, self._vocab
        template = self.metadata("tokenizer.chat_template")
        control = [i for i in range(self.size) if c.llama_vocab_is_control(vocab, i)]
        ends = {i for i in range(self.size) if c.llama_vocab_is_eog(vocab, i)}
        texts = {i: self.piece(i, special=True).decode("utf-8", "replace") for i in control}
        stops = ends | {i for i in control if texts[i] in END_TEXTS}
        bos, eos = c.llama_vocab_bos(vocab), c.llama_vocab_eos(vocab)
        stops |= {eos} if eos >= 0 else set()
        prefix = (bos,) if bos >= 0 and c.llama_vocab_get_add_bos(vocab) else ()
        special = tuple(sorted(t for t in texts.values() if t))
        return Dialect(template, texts.get(bos, ""), texts.get(eos, ""), prefix, frozenset(stops), special)
