"""The bytes that a token reads: against config, file and graphs of other makers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest

from benchmarks.shapes import SHAPES
from edge.benchmarking.traffic import traffic
from quant.recipe import Recipe
from tests.converters.gguf_support import write_gguf
from tests.edge.engines import ENGINES, write_variant

Tiny = Callable[..., Path]
CONTEXT = 256


def parameters(shape: str, **changes: int) -> tuple[int, int]:
    """(of all layers with the final norm, of one embedding) by the sizes in the config alone."""
    config = SHAPES[shape] | changes
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    qkv = (heads + 2 * config["num_key_value_heads"]) * head * hidden
    layer = qkv + heads * head * hidden + 3 * hidden * config["intermediate_size"] + 2 * hidden
    return config["num_hidden_layers"] * layer + hidden, config["vocab_size"] * hidden


@pytest.mark.parametrize("shape", ["phi4", "phi4-mini"])  # untied, tied
@pytest.mark.parametrize("engine", ENGINES)
def test_a_token_reads_every_weight_once_and_one_row_of_an_embedding(
    shape: str, engine: str, tiny: Tiny, tmp_path: Path
) -> None:
    found = traffic(write_variant(engine, tiny(shape), tmp_path, context=CONTEXT))
    assert found is not None
    layers, embedding = parameters(shape)
    wanted = 4 * (layers + embedding)  # float32; the output projection is read, tied or not
    row = 0 if SHAPES[shape]["tie_word_embeddings"] else 4 * SHAPES[shape]["hidden_size"]
    # Beside it, in the ONNX graph, a row of each rotary table and a few int64 constants; in the GGUF of phi4-mini
    # the long and the short rotary factors, float32.
    assert 0 <= found.weights - wanted - row <= 512
    config = SHAPES[shape]
    head = config["hidden_size"] // config["num_attention_heads"]
    per_position = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head
    assert found.kv == per_position * (4 if engine == "onnx" else 2)  # float32; llama.cpp's default is f16
    assert found.at(100) - found.at(40) == 60 * found.kv


def test_quantized_tensors_count_what_they_take_in_the_file(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    write_gguf(tiny("phi4"), file, Recipe.preset("int4"), context=CONTEXT)
    sizes = {t.name: int(t.n_bytes) for t in gguf.GGUFReader(file).tensors}
    row = sizes["token_embd.weight"] // SHAPES["phi4"]["vocab_size"]
    found = traffic(file)
    assert found is not None
    assert found.weights == sum(sizes.values()) - sizes["token_embd.weight"] + row
    eight_bits = traffic(file, "q8_0")
    assert eight_bits is not None
    assert eight_bits.kv == found.kv * 34 // 64  # 34 bytes hold 32 values


def _graph(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    initializers = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], initializers))


def test_experts_widened_weights_and_windows_of_graphs_by_others(tmp_path: Path) -> None:
    """As genai's model builder writes them: tables out of a branch, experts of which k are chosen."""
    node = onnx.helper.make_node
    tables = [node("Identity", ["cos"], ["cosines"]), node("Identity", ["sin"], ["sines"])]
    branch = onnx.helper.make_graph(tables, "b", [], [])
    nodes = [
        node("Gather", ["embedding", "ids"], ["x"]),
        node("If", ["long"], ["c", "s"], then_branch=branch, else_branch=branch),
        node("QMoE", ["x", "router", "experts"], ["y"], k=2),
        node("Cast", ["half"], ["wide"], to=onnx.TensorProto.FLOAT),
        node("GroupQueryAttention", ["y", "", "", "", "", "", "", "c", "s"], ["z"], local_window_size=64),
    ]
    weights = {
        "embedding": np.zeros((100, 8), np.float32),
        "cos": np.zeros((1000, 4), np.float32),
        "sin": np.zeros((1000, 4), np.float32),
        "experts": np.zeros((16, 4, 8), np.uint8),
        "half": np.zeros((8, 8), np.float16),
    }
    onnx.save(_graph(nodes, weights), str(tmp_path / "decoder.onnx"))
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "decoder.onnx"}}}')
    found = traffic(tmp_path)
    assert found is not None
    rows, chosen, widened = 8 * 4 + 2 * (4 * 4), 2 * 4 * 8, 8 * 8 * 4
    assert found.weights == rows + chosen + widened
    assert found.window == 64
    assert found.at(1000) == found.at(64)


def test_an_unknown_format_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.toy").write_text("toy")
    assert traffic(tmp_path / "model.toy") is None
