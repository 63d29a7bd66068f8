"""llama.cpp through its C API, and tiny GGUF files for the tests of the GGUF room."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp as c
import numpy as np
from numpy.typing import NDArray

from converters import gguf
from converters.checkpoint import Checkpoint
from converters.decoder import Attention, Decoder, GatedMlp, Layer, Rope, Weight
from converters.models import describe
from quant.recipe import Recipe

_QUIET = c.llama_log_callback(lambda *_: None)
c.llama_log_set(_QUIET, ctypes.c_void_p(0))


def write_gguf(
    directory: Path, out: Path, recipe: Recipe, *, context: int | None = None, name: str = "tiny"
) -> Decoder:
    """The checkpoint as one .gguf file, in chunks of 100 rows."""
    with Checkpoint.open(directory) as checkpoint:
        decoder = describe(checkpoint)
        writer = gguf.open_writer(
            decoder,
            recipe,
            out,
            context_length=context or gguf.context_limit(decoder)[0],
            checkpoint_directory=directory,
            model_name=name,
        )
        for weight in decoder.weights():
            for start in range(0, weight.rows, 100):
                raw = checkpoint.weight_rows(weight, start, min(start + 100, weight.rows))
                writer.write(weight, start, recipe.encode(weight, raw, start=start))
        writer.close()
    return decoder


def bare_decoder(vocab_size: int, *, eos: Sequence[int] = (0,), bos: int | None = None) -> Decoder:
    """One layer of width 32 whose weights are nowhere: for files of which only the vocabulary is loaded."""
    n = 32

    def weight(name: str, *shape: int) -> Weight:
        return Weight(name, shape, ())

    layer = Layer(
        **{name: weight(name, n) for name in ("input_norm", "post_attention_norm")},
        **{name: weight(name, n, n) for name in ("q", "k", "v", "o")},
        mlp=GatedMlp(*(weight(name, n, n) for name in ("gate", "up", "down"))),
    )
    embedding = weight("embedding", vocab_size, n)
    return Decoder(
        model_type="phi3",
        architecture="Phi3ForCausalLM",
        vocab_size=vocab_size,
        hidden_size=n,
        intermediate_size=n,
        context_length=256,
        norm_eps=1e-5,
        rope=Rope(10000.0, n, 256),
        attention=Attention(1, 1, n, n**-0.5, None),
        embedding=embedding,
        layers=(layer,),
        final_norm=weight("final_norm", n),
        lm_head=embedding,
        bos_token_id=bos,
        eos_token_ids=tuple(eos),
        pad_token_id=None,
    )


def write_vocabulary(directory: Path, out: Path, decoder: Decoder, *, name: str = "tiny") -> Path:
    """A file with the checkpoint's tokenizer and weights of zeros."""
    recipe = Recipe.preset("f16")
    writer = gguf.open_writer(
        decoder, recipe, out, context_length=256, checkpoint_directory=directory, model_name=name
    )
    writer.abort()
    return out


class Llama:
    """A loaded file. `vocab_only` leaves the weights alone."""

    def __init__(self, path: Path, *, vocab_only: bool = False) -> None:
        params = c.llama_model_default_params()
        params.vocab_only = vocab_only
        self.model = c.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocab = c.llama_model_get_vocab(self.model)
        self.size = c.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text: str | bytes, *, special: bool = True, around: bool = False) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        room = len(data) + 16
        ids = (c.llama_token * room)()
        count = c.llama_tokenize(self.vocab, data, len(data), ids, room, around, special)
        assert count >= 0
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = c.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def stops(self) -> set[int]:
        return {i for i in range(self.size) if c.llama_vocab_is_eog(self.vocab, i)}

    def metadata(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(1 << 16)
        length = c.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.raw[:length].decode()

    def logits(self, chunks: Sequence[Sequence[int]], *, context: int = 256) -> NDArray[np.float32]:
        """All logits of the chunks, each one `llama_decode` after the other; float32 KV cache, one thread."""
        params = c.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = context, 1, 1
        params.n_batch = params.n_ubatch = 512
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        llama = c.llama_init_from_model(self.model, params)
        assert llama
        batch = c.llama_batch_init(512, 0, 1)
        rows, position = [], 0
        for chunk in chunks:
            batch.n_tokens = len(chunk)
            for i, token in enumerate(chunk):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position + i, 1
                batch.seq_id[i][0], batch.logits[i] = 0, True
            assert c.llama_decode(llama, batch) == 0
            pointer = c.llama_get_logits(llama)
            rows.append(np.ctypeslib.as_array(pointer, (len(chunk), self.size)).copy())
            position += len(chunk)
        c.llama_batch_free(batch)
        c.llama_free(llama)
        return np.concatenate(rows)

    def close(self) -> None:
        c.llama_model_free(self.model)


@contextmanager
def llama(path: Path, *, vocab_only: bool = False) -> Iterator[Llama]:
    loaded = Llama(path, vocab_only=vocab_only)
    try:
        yield loaded
    finally:
        loaded.close()
