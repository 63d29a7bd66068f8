"""A conversion corrupted on purpose must not pass its proof: each fault of the issue, in each format."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.decoder import Decoder, Weight
from converters.errors import ProofError
from converters.writer import Encoded
from edge import convert as convert_module
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from quant.blocks import Blocks
from tests.edge.wrong_wiring import refused

Tiny = Callable[..., Path]
Corrupt = Callable[[Weight, int, Encoded], Encoded]


def one_scale_doubled(weight: Weight, start: int, rows: Encoded) -> Encoded:
    if weight.name != "layers.1.mlp.down" or start:
        return rows
    assert isinstance(rows, Blocks)
    scales = rows.scales.copy()
    scales[3, 1] *= 2
    return dataclasses.replace(rows, scales=scales)


def head_permuted(weight: Weight, start: int, rows: Encoded) -> Encoded:
    if weight.name != "layers.0.attention.q":
        return rows
    assert isinstance(rows, Blocks)
    order = np.roll(np.arange(len(rows.codes)), len(rows.codes) // 4)
    return dataclasses.replace(rows, codes=rows.codes[order], scales=rows.scales[order])


def norm_left_out(weight: Weight, start: int, rows: Encoded) -> Encoded:
    if weight.name != "layers.1.post_attention_norm":
        return rows
    assert isinstance(rows, np.ndarray)
    return np.ones_like(rows)


def one_code_moved(weight: Weight, start: int, rows: Encoded) -> Encoded:
    """One 4-bit code by half its range: far below what the error of its block may be."""
    if weight.name != "layers.0.mlp.up" or start:
        return rows
    assert isinstance(rows, Blocks)
    codes = rows.codes.copy()
    codes[5, 7] = (codes[5, 7] + 4) % 16
    return dataclasses.replace(rows, codes=codes)


def matrix_scaled(weight: Weight, start: int, rows: Encoded) -> Encoded:
    if weight.name != "layers.0.attention.o":
        return rows
    assert isinstance(rows, Blocks)
    return dataclasses.replace(rows, scales=(rows.scales * np.float16(1.4)).astype(np.float16))


def swap_k_and_v(decoder: Decoder) -> Decoder:
    layers = tuple(dataclasses.replace(la, k=la.v, v=la.k) for la in decoder.layers)
    return dataclasses.replace(decoder, layers=layers)


def reverse_short_factors(decoder: Decoder) -> Decoder:
    assert decoder.rope.short_factors is not None
    rope = dataclasses.replace(decoder.rope, short_factors=decoder.rope.short_factors[::-1])
    return dataclasses.replace(decoder, rope=rope)


def reverse_long_factors(decoder: Decoder) -> Decoder:
    assert decoder.rope.long_factors is not None
    rope = dataclasses.replace(decoder.rope, long_factors=decoder.rope.long_factors[::-1])
    return dataclasses.replace(decoder, rope=rope)


def _of_attention(**changes: Any) -> Callable[[Decoder], Decoder]:
    return lambda d: dataclasses.replace(d, attention=dataclasses.replace(d.attention, **changes))


def double_eps(decoder: Decoder) -> Decoder:
    return dataclasses.replace(decoder, norm_eps=decoder.norm_eps * 2)


def scale_scores(decoder: Decoder) -> Decoder:
    return _of_attention(scale=decoder.attention.scale * 1.1)(decoder)


def louder_rotation(decoder: Decoder) -> Decoder:
    rope = dataclasses.replace(decoder.rope, attention_factor=decoder.rope.attention_factor * 1.015)
    return dataclasses.replace(decoder, rope=rope)


def later_switch(decoder: Decoder) -> Decoder:
    return dataclasses.replace(decoder, rope=dataclasses.replace(decoder.rope, original_context=8192))


def other_end(decoder: Decoder) -> Decoder:
    return dataclasses.replace(decoder, eos_token_ids=(5,))


class CorruptWriter:
    """Passes everything on, changed."""

    def __init__(self, writer: Any, corrupt: Corrupt) -> None:
        self.writer, self.corrupt = writer, corrupt

    def holds(self, weight: Weight) -> bool:
        return bool(self.writer.holds(weight))

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        self.writer.write(weight, start, self.corrupt(weight, start, rows))

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.abort()


def run(checkpoint: Path, output: Path, target: str, context: int = 8192) -> None:
    convert(plan(ConvertRequest(str(checkpoint), (target,), output=output, context=context)), Silent())


@pytest.mark.parametrize("target", ["android", "cpu"])
@pytest.mark.parametrize(
    "corrupt", [one_scale_doubled, head_permuted, norm_left_out, one_code_moved, matrix_scaled]
)
def test_wrong_bytes_are_caught(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, corrupt: Corrupt
) -> None:
    real = convert_module._open_writer
    monkeypatch.setattr(convert_module, "_open_writer", lambda *args: CorruptWriter(real(*args), corrupt))
    with pytest.raises(ProofError):
        run(tiny("phi4-mini"), tmp_path / "b", target)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("target", "corrupt", "said"),
    [
        ("android", swap_k_and_v, r"layers\.0\.attention\.k: row"),
        ("cpu", swap_k_and_v, r"layers\.0\.attention\.k: row"),
        ("android", reverse_short_factors, "rope_factors_short"),
        ("cpu", reverse_short_factors, "rotary cos"),
        ("cpu", reverse_long_factors, "rotary cos"),  # llama.cpp is capped below the switch
        ("android", double_eps, "layer_norm_rms_epsilon is 2e-05, must be 1e-05"),
        ("cpu", double_eps, "epsilon is 2e-05"),
        ("cpu", scale_scores, "scale is"),  # llama.cpp has its own scale, and its writer refuses another
        ("android", louder_rotation, "attn_factor is"),
        ("cpu", louder_rotation, "attention factor at a length of 4096 is off by 0.015"),
        ("android", later_switch, "original_context_length is 8192, must be 4096"),
        ("cpu", later_switch, "model.type is phi, must be phi3"),
        ("android", other_end, "eos_token_id is 5"),
        ("cpu", other_end, "eos_token_id is"),
    ],
)
def test_wrong_wiring_is_caught(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    corrupt: Callable[[Decoder], Decoder],
    said: str,
) -> None:
    refused(run, tiny("phi4-mini"), tmp_path, monkeypatch, target, corrupt, said)


@pytest.mark.parametrize(
    ("target", "said"), [("cpu", "local_window_size is -1"), ("android", "sliding_window")]
)
def test_a_lost_window_is_caught(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    """2047 positions: far beyond the proof's text, so only the constant tells. (llama.cpp is capped at it.)"""
    wide = _of_attention(window=4000 if target == "android" else None)
    refused(run, tiny("phi3-mini-4k"), tmp_path, monkeypatch, target, wide, said)


def _edit_graph(artifact: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(str(artifact / "model.onnx"), load_external_data=False)
    change(model.graph)
    onnx.save(model, str(artifact / "model.onnx"))


def move_switch(artifact: Path) -> None:
    def change(graph: Any) -> None:
        for tensor in graph.initializer:
            if tensor.name == "switch":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(5000, np.int64), "switch"))

    _edit_graph(artifact, change)


def no_reread(artifact: Path) -> None:
    _edit_config(artifact, "model", "type", "phi")


def shorter_config(artifact: Path) -> None:
    _edit_config(artifact, "search", "max_length", 8000)


def _edit_config(artifact: Path, part: str, key: str, value: Any) -> None:
    file = artifact / "genai_config.json"
    config = json.loads(file.read_text())
    config[part][key] = value
    file.write_text(json.dumps(config))


def longer_metadata(artifact: Path) -> None:
    """In place: a key, its type (uint32), its value."""
    key = b"phi3.context_length"
    data = artifact.read_bytes()
    at = data.index(key) + len(key) + 4
    artifact.write_bytes(data[:at] + struct.pack("<I", 131072) + data[at + 4 :])


def other_words_onnx(artifact: Path) -> None:
    file = artifact / "tokenizer.json"
    data = json.loads(file.read_text())
    vocab = data["model"]["vocab"]
    vocab["e"], vocab["a"] = vocab["a"], vocab["e"]
    file.write_text(json.dumps(data))


def other_words_gguf(artifact: Path) -> None:
    """The texts of two tokens change places."""
    e, a = (struct.pack("<Q", 1) + letter for letter in (b"e", b"a"))
    header, rest = artifact.read_bytes().split(b"tokenizer.ggml.tokens", 1)
    first, second = rest.index(e), rest.index(a)
    words = bytearray(rest)
    words[first : first + 9], words[second : second + 9] = a, e
    artifact.write_bytes(header + b"tokenizer.ggml.tokens" + words)


@pytest.mark.parametrize(
    ("target", "change", "said"),
    [
        ("cpu", move_switch, "LongRoPE switch and long_offset is .5000, 4096., must be .4096, 4096."),
        ("cpu", no_reread, "model.type is phi, must be phi3"),
        ("cpu", shorter_config, "search.max_length is 8000, must be 8192"),
        ("android", longer_metadata, "phi3.context_length is 131072, must be 4096"),
        ("cpu", other_words_onnx, "tokenizer: the ids of proof.txt differ"),
        ("android", other_words_gguf, "tokenizer: the ids of proof.txt differ"),
    ],
)
def test_files_changed_after_writing_are_caught(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    change: Callable[[Path], None],
    said: str,
) -> None:
    real = convert_module._open_writer

    class Changed(CorruptWriter):
        artifact: Path

        def close(self) -> None:
            self.writer.close()
            change(self.artifact)

    def then_changed(planned: Any, variant: Any, decoder: Decoder, directory: Path) -> Any:
        writer = Changed(real(planned, variant, decoder, directory), lambda weight, start, rows: rows)
        writer.artifact = directory / variant.relative_path
        return writer

    monkeypatch.setattr(convert_module, "_open_writer", then_changed)
    with pytest.raises(ProofError, match=said):
        run(tiny("phi4-mini"), tmp_path / "b", target)
    assert not (tmp_path / "b").exists()


def test_a_norm_dropped_from_the_graph_is_caught_by_running_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored weights are all right here: only the runtime's logits can tell."""
    real = convert_module._open_writer

    class Rewired(CorruptWriter):
        def close(self) -> None:
            self.writer.close()
            file = next(tmp_path.rglob("model.onnx"))
            model = onnx.load(str(file), load_external_data=False)
            skips = [n for n in model.graph.node if n.op_type == "SkipSimplifiedLayerNormalization"]
            node = skips[0]
            model.graph.node.insert(
                list(model.graph.node).index(node) + 1,
                onnx.helper.make_node("Add", [node.input[0], node.input[1]], [node.output[0] + "_sum"]),
            )
            for other in model.graph.node:
                if other is not node and other.op_type == "MatMulNBits" and other.input[0] == node.output[0]:
                    other.input[0] = node.output[0] + "_sum"
            onnx.save(model, str(file))

    monkeypatch.setattr(
        convert_module, "_open_writer", lambda *args: Rewired(real(*args), lambda weight, start, rows: rows)
    )
    with pytest.raises(ProofError, match="fidelity"):
        run(tiny("phi4-mini"), tmp_path / "b", "cpu")
