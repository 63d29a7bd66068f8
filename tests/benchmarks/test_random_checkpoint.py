"""Random checkpoints: the true sizes, the same bytes again, tokenizers that lose nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import Phi3ForCausalLM

from benchmarks.random_checkpoint import POOL, SHAPES, main, tensor_shapes, write_checkpoint
from converters.checkpoint import Checkpoint

TEXTS = [
    "The capital of France is Paris.",
    "def f(x):\n\treturn x  # 2048\r\n",
    "東京は日本の首都です 🙂🚀 Привет",
    "  two lone  spaces ",
    "\x00\x7f\ufffd é e\u0301",
]


# 3,836,021,760 parameters: what the hub shows for microsoft/Phi-4-mini-instruct.
@pytest.mark.parametrize(("name", "count"), [("phi4-mini-full", 3_836_021_760), ("1b", 906_037_248)])
def test_big_shapes_have_their_size(name: str, count: int) -> None:
    assert sum(math.prod(shape) for _, shape in tensor_shapes(SHAPES[name])) == count


@pytest.mark.parametrize("vocab", [640, 3 * POOL // (2 * 192)])
def test_same_arguments_same_bytes_and_another_seed_not(tmp_path: Path, vocab: int) -> None:
    """Below and above the size from which values come from the pool."""
    config = SHAPES["phi4-mini"] | {"vocab_size": vocab}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, config, seed=seed)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ac"]
    assert weights[0] != weights[1]


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    config = SHAPES["uneven"]
    write_checkpoint(tmp_path / "one", config)
    write_checkpoint(tmp_path / "four", config, shards=4)
    assert len(list((tmp_path / "four").glob("*.safetensors"))) == 4
    with Checkpoint.open(tmp_path / "one") as one, Checkpoint.open(tmp_path / "four") as four:
        assert list(one.tensors) == list(four.tensors)
        for name in one.tensors:
            assert one.read(name).tobytes() == four.read(name).tobytes()


def test_the_command_writes_a_checkpoint_that_transformers_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "c"
    monkeypatch.setattr("sys.argv", ["x", "phi3.5-mini", str(target), "--layers", "1", "--dtype", "f32"])
    main()
    model, report = Phi3ForCausalLM.from_pretrained(target, output_loading_info=True)
    assert model.config.num_hidden_layers == 1
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.parametrize("name", ["phi3-mini-4k", "phi4", "phi4-mini"])
@pytest.mark.parametrize("text", TEXTS)
def test_tokenizers_lose_nothing(tiny: Callable[..., Path], name: str, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(tiny(name) / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode()) + 2
    assert tokenizer.get_vocab_size() < SHAPES[name]["vocab_size"]


@pytest.mark.parametrize(("name", "end"), [("phi3-mini-4k", "<|end|>"), ("phi4", "<|im_end|>")])
def test_a_turn_marker_is_one_token(tiny: Callable[..., Path], name: str, end: str) -> None:
    tokenizer = Tokenizer.from_file(str(tiny(name) / "tokenizer.json"))
    tokens = tokenizer.encode(f"Hello{end}").tokens
    assert tokens[-1] == end
