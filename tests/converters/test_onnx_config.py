"""The small files, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime_genai as og
import pytest
from tokenizers import Tokenizer

from converters import onnx as onnx_room
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import CheckpointError, EdgeError, UnsupportedError
from converters.models import describe
from quant.recipe import Recipe
from tests.converters.onnx_support import F32, convert

TEXT = "Hello, it's 2048 tokens!\n  def f(x): return x\t🙂 東京 <|user|>hi<|end|>\n<|assistant|> ok"


def _decoder(checkpoint: Path) -> Decoder:
    with Checkpoint.open(checkpoint) as opened:
        return describe(opened)


def test_the_kv_cache_is_committed_for_the_bundle_s_context_only(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """genai allocates max_length positions at once; the checkpoint's 131,072 would be gigabytes."""
    decoder = convert(tiny("phi4-mini"), tmp_path, context_length=512)
    assert decoder.context_length == 131072
    config = json.loads((tmp_path / "genai_config.json").read_text())
    assert config["search"]["max_length"] == config["model"]["context_length"] == 512
    assert config["search"]["past_present_share_buffer"] is True
    assert config["model"]["eos_token_id"] == list(decoder.eos_token_ids)
    assert len(decoder.eos_token_ids) > 1
    params = og.GeneratorParams(og.Model(str(tmp_path)))
    params.set_search_options(max_length=513)
    with pytest.raises(RuntimeError, match="max_length"):
        og.Generator(og.Model(str(tmp_path)), params)


@pytest.mark.parametrize(
    ("shape", "context", "kind"),
    [("phi4-mini", 8192, "phi3"), ("phi4-mini", 4096, "phi"), ("phi4", 8192, "phi")],
)
def test_only_a_model_that_changes_its_factors_is_read_anew_at_4096(
    shape: str, context: int, kind: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    convert(tiny(shape), tmp_path, context_length=context)
    assert json.loads((tmp_path / "genai_config.json").read_text())["model"]["type"] == kind


@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi4", "phi4-mini"])
def test_genai_loads_the_tokenizer(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tiny(shape)
    convert(checkpoint, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (checkpoint / name).read_bytes()
    tokenizer = og.Tokenizer(og.Model(str(tmp_path)))
    expected = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(TEXT, add_special_tokens=False)
    assert tokenizer.encode(TEXT).tolist() == expected.ids
    turns = json.dumps([{"role": "user", "content": "hello there"}])
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    assert "hello there" in prompt
    assert "assistant" in prompt


def test_a_chat_template_file_is_copied(tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in tiny("odd-vocab").iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    (checkpoint / "secret.txt").write_text("not a tokenizer file")
    convert(checkpoint, tmp_path / "variant")
    copied = {path.name for path in (tmp_path / "variant").iterdir()}
    assert "chat_template.jinja" in copied
    assert "secret.txt" not in copied
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        convert(checkpoint, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_model_without_bos_loads(tiny: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = tiny("odd-vocab")
    decoder = replace(_decoder(checkpoint), bos_token_id=None, pad_token_id=None)
    writer = onnx_room.open_writer(decoder, F32, tmp_path, context_length=64, checkpoint_directory=checkpoint)
    with Checkpoint.open(checkpoint) as opened:
        for weight in decoder.weights():
            writer.write(weight, 0, F32.encode(weight, opened.weight_rows(weight, 0, weight.rows)))
    writer.close()
    assert og.Model(str(tmp_path)).type == "phi"


def test_what_cannot_be_right_is_refused_by_name(tiny: Callable[..., Path], tmp_path: Path) -> None:
    decoder = _decoder(tiny("phi4"))
    attention, rope = decoder.attention, decoder.rope
    refused = {
        "3 key-value heads": replace(decoder, attention=replace(attention, kv_heads=3)),
        "rotary width 7": replace(decoder, rope=replace(rope, dim=7)),
        "rotary width 64": replace(decoder, rope=replace(rope, dim=64)),
        "no end-of-sequence": replace(decoder, eos_token_ids=()),
    }
    for cause, wrong in refused.items():
        with pytest.raises(UnsupportedError, match=cause) as caught:
            onnx_room.check(wrong, F32)
        assert caught.value.hint
    with pytest.raises(UnsupportedError, match="no rule"):
        onnx_room.check(decoder, Recipe("empty", ()))
    for context in (0, 16385):
        with pytest.raises(EdgeError, match=r"not in 1\.\.16384"):
            onnx_room.open_writer(
                decoder, F32, tmp_path / "no", context_length=context, checkpoint_directory=tiny("phi4")
            )
    assert not (tmp_path / "no").exists()
