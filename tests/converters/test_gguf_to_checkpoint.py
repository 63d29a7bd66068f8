"""A llama GGUF rewritten in Phi-3 layout is the same function; what is no plain llama is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Phi3ForCausalLM

from converters.errors import CheckpointError, UnsupportedError
from converters.gguf import to_checkpoint
from converters.gguf.to_checkpoint import checkpoint_bytes, write_checkpoint
from tests.converters import llama_gguf

IDS = torch.tensor([[5, 100, 33, 7, 250, 260, 1, 90, 90, 12]])


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    return llama_gguf.model()


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_the_llama_model(tmp_path: Path, tied: bool) -> None:
    net = llama_gguf.model(tied=tied)
    llama_gguf.write(tmp_path / "m.gguf", net)
    (tmp_path / "out").mkdir()
    write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")
    phi3 = Phi3ForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        expected, got = net(IDS).logits, phi3(IDS).logits
    # Equal weights; fused matrices are multiplied in another order: float32 rounding of logits around 10.
    assert torch.allclose(got, expected, atol=2e-5)
    assert phi3.config.tie_word_embeddings is tied


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_float16_stays_far_below_a_step(tmp_path: Path, net: torch.nn.Module, kind: str) -> None:
    llama_gguf.write(tmp_path / "m.gguf", net, kind=gguf.GGMLQuantizationType[kind])
    (tmp_path / "out").mkdir()
    write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")
    phi3 = Phi3ForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    got = phi3.model.embed_tokens.weight.detach().numpy().reshape(-1, 32)
    rows = net.model.embed_tokens.weight.detach().numpy()
    stored = gguf.GGMLQuantizationType[kind]
    exact = gguf.dequantize(gguf.quantize(rows, stored), stored).reshape(-1, 32)
    peak, spread = np.abs(exact).max(1, keepdims=True), np.ptp(exact, axis=1, keepdims=True)
    # float16 keeps 11 bits: it moves a value by 2^-11 of itself at most. The largest value of a Q8_0 block is
    # 127 steps, of a Q4_1 block with both signs at most 15.
    limit = peak / 127 * (127 / 2048) if kind == "Q8_0" else spread / 15 * (15 / 2048)
    assert (np.abs(got - exact) <= limit).all()


def test_rows_in_chunks_give_the_same_bytes(
    tmp_path: Path, net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_gguf.write(tmp_path / "m.gguf", net)
    hashes, written = [], 0
    for name, values in (("whole", 1 << 21), ("single", 1), ("again", 1 << 21)):
        monkeypatch.setattr(to_checkpoint, "_CHUNK_VALUES", values)
        (tmp_path / name).mkdir()
        seen: list[int] = []
        files = write_checkpoint(tmp_path / "m.gguf", tmp_path / name, advance=seen.append)
        hashes.append([hashlib.sha256((tmp_path / name / f).read_bytes()).hexdigest() for f in files])
        written = sum(seen)
    assert hashes[0] == hashes[1] == hashes[2]
    assert written == checkpoint_bytes(tmp_path / "m.gguf")


def test_tokenizer_round_trip(tmp_path: Path, net: torch.nn.Module) -> None:
    llama_gguf.write(tmp_path / "m.gguf", net)
    (tmp_path / "out").mkdir()
    write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "<|im_start|>hello w 1234 ½ é日🙂\t \n<|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 1
    assert ids[-1] == 2
    assert llama_gguf.TOKENS[ids[1]] == "hello"
    assert tokenizer.decode(ids) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.type"),
        ({"llama.expert_count": 4}, "llama.expert_count"),
        ({"llama.attention.key_length": 32}, "llama.attention.key_length"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "llama-bpe"),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token"),
        ({"general.architecture": "qwen2"}, "qwen2"),
    ],
)
def test_no_plain_llama_is_refused(
    tmp_path: Path, net: torch.nn.Module, keys: dict[str, object], named: str
) -> None:
    llama_gguf.write(tmp_path / "m.gguf", net, keys=keys)
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedError, match=named):
        write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"llama.block_count": None}, "llama.block_count"),
        ({"llama.block_count": 3}, "blk.2.attn_norm.weight"),
        ({"llama.attention.head_count": 3}, "3 heads"),
        ({"llama.rope.freq_base": float("nan")}, "llama.rope.freq_base"),
        ({"llama.feed_forward_length": 64}, "blk.0.ffn_gate.weight"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "eos_token_id"),
        ({"tokenizer.ggml.merges": ["h zz"]}, "merges"),
        ({"tokenizer.ggml.token_type": [1]}, "token_type"),
    ],
)
def test_damaged_keys_are_named(
    tmp_path: Path, net: torch.nn.Module, keys: dict[str, object], named: str
) -> None:
    llama_gguf.write(tmp_path / "m.gguf", net, keys=keys)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=named):
        write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")


def test_extra_tensor_is_refused(tmp_path: Path, net: torch.nn.Module) -> None:
    extra = {"blk.0.attn_q.bias": np.zeros(64, np.float32)}
    llama_gguf.write(tmp_path / "m.gguf", net, tensors=extra)
    with pytest.raises(UnsupportedError, match=r"blk\.0\.attn_q\.bias"):
        checkpoint_bytes(tmp_path / "m.gguf")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_past_float16_are_refused(tmp_path: Path, net: torch.nn.Module, value: float) -> None:
    rows = np.zeros((64, 96), np.float32)
    rows[3, 5] = value
    llama_gguf.write(tmp_path / "m.gguf", net, tensors={"blk.1.ffn_down.weight": rows})
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_down\.weight"):
        write_checkpoint(tmp_path / "m.gguf", tmp_path / "out")
