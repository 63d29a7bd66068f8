"""A conversion corrupted on purpose must not pass its proof: each fault of the issue, in each format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.decoder import Decoder, Weight
from converters.errors import ProofError
from converters.writer import Encoded
from edge import convert as convert_module
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from quant.blocks import Blocks

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


class CorruptWriter:
    """Passes everything on, changed."""

    def __init__(self, writer: Any, corrupt: Corrupt) -> None:
        self.writer, self.corrupt = writer, corrupt

    def write(self, weight: Weight, start: int, rows: Encoded) -> None:
        self.writer.write(weight, start, self.corrupt(weight, start, rows))

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.abort()


def run(checkpoint: Path, output: Path, target: str, context: int = 8192) -> None:
    convert(plan(ConvertRequest(str(checkpoint), (target,), output=output, context=context)), Silent())


@pytest.mark.parametrize("target", ["android", "cpu"])
@pytest.mark.parametrize("corrupt", [one_scale_doubled, head_permuted, norm_left_out])
def test_wrong_bytes_are_caught(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, corrupt: Corrupt
) -> None:
    real = convert_module._open_writer
    monkeypatch.setattr(convert_module, "_open_writer", lambda *args: CorruptWriter(real(*args), corrupt))
    with pytest.raises(ProofError):
        run(tiny("phi4-mini"), tmp_path / "b", target)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("target", "corrupt"),
    [
        ("android", swap_k_and_v),
        ("cpu", swap_k_and_v),
        ("android", reverse_short_factors),
        ("cpu", reverse_short_factors),
        ("cpu", reverse_long_factors),  # llama.cpp is capped below the switch and never uses the long ones
    ],
)
def test_wrong_wiring_is_caught(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    corrupt: Callable[[Decoder], Decoder],
) -> None:
    real = convert_module._open_writer

    def wired_wrong(planned: Any, variant: Any, decoder: Decoder, directory: Path) -> Any:
        return real(planned, variant, corrupt(decoder), directory)

    monkeypatch.setattr(convert_module, "_open_writer", wired_wrong)
    with pytest.raises(ProofError):
        run(tiny("phi4-mini"), tmp_path / "b", target)
    assert not (tmp_path / "b").exists()


def test_a_norm_dropped_from_the_graph_is_caught_by_running_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored weights are all right here: only the runtime's logits can tell."""
    import onnx

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
