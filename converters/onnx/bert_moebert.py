"""A MoEBERT encoder as an ONNX graph, in which each token is multiplied by its own expert alone.

Inputs `input_ids`, `attention_mask`, `token_type_ids` (int64 [batch, length]); output `logits` (float32 [batch,
classes]). onnxruntime's MoE operator knows only the tanh approximation of GELU, 8e-4 off, so the tokens of an expert
are gathered, go through its matrices, and are put back where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from converters.bert_moebert import BertExpert, RoutedBert, RoutedLayer, describe_bert
from converters.checkpoint import Checkpoint
from converters.decoder import Weight
from converters.encoders import Linear, SelfAttention
from converters.onnx.encoder_parts import MASKED, EncoderGraph, plan_encoder, value
from converters.onnx.graph import MICROSOFT
from converters.onnx.layout import DATA_FILE, Layout
from converters.onnx.parts import gather
from converters.onnx.writer import begin
from converters.writer import Encoded, Storages

GRAPH_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ACCURACY_LEVEL = 4
_CHUNK_ROWS = 4096


class Encoding(Storages, Protocol):
    """A recipe that also encodes (`quant.recipe.Recipe` is one)."""

    def encode(self, weight: Weight, raw_rows: NDArray[np.generic], *, start: int = 0) -> Encoded: ...


def write_bert(
    checkpoint: Checkpoint, recipe: Encoding, directory: Path, *, accuracy_level: int = ACCURACY_LEVEL
) -> None:
    """model.onnx and its data file in `directory`, made if missing. Raises what `describe_bert` raises.

    `accuracy_level`: of blocks; 0 multiplies by the dequantized weights in float32.
    """
    model = describe_bert(checkpoint)
    layout = plan_encoder(model, recipe, DATA_FILE)
    graph = build_bert(model, layout, accuracy_level).SerializeToString(deterministic=True)
    writer = begin(model, [layout], directory, {GRAPH_FILE: graph}, iter(()))
    try:
        for weight in model.weights():
            for start, rows in _chunks(checkpoint, weight):
                writer.write(weight, start, recipe.encode(weight, rows, start=start))
    except BaseException:
        writer.abort()
        raise
    writer.close()


def build_bert(model: RoutedBert, layout: Layout, accuracy_level: int = ACCURACY_LEVEL) -> onnx.ModelProto:
    """The graph file."""
    graph = EncoderGraph(layout, accuracy_level)
    ids, mask, types = INPUTS
    places = graph.range(graph.size(ids, 1))
    x = graph.op(
        "Add",
        graph.op(
            "Add",
            gather(graph, graph.stored(model.words), ids, "embedded"),
            gather(graph, graph.stored(model.types), types, "embedded.types"),
        ),
        gather(graph, graph.stored(model.positions), places, "embedded.positions"),
    )
    x = graph.layer_norm(model.norm, graph.op("Flatten", x, axis=2), model.norm_eps)
    seen = graph.op("Cast", mask, to=TensorProto.INT32)
    by_text = graph.op("Concat", graph.op("Shape", ids), graph.ints(-1), axis=0)
    for layer in model.layers:
        attended = _attend(graph, layer.attention, x, model.heads, seen, by_text)
        x = graph.layer_norm(layer.attention.norm, graph.op("Add", x, attended), model.norm_eps)
        x = _route(graph, layer, x, ids, model.norm_eps)
    first = graph.op("Gather", graph.op("Reshape", x, by_text), graph.scalar(0), axis=1)
    pooled = graph.op("Tanh", _linear(graph, model.pooler, first))
    graph.node("Identity", [_linear(graph, model.classifier, pooled)], "logits")
    inputs = [value(name, TensorProto.INT64, "batch", "length") for name in INPUTS]
    made = graph.model(inputs, [value("logits", TensorProto.FLOAT, "batch", model.classes)], name="encoder")
    # What ONNX's shape inference cannot know of an operator of another domain, and onnxruntime's quantizer must.
    mixed = (node.output[0] for node in made.graph.node if node.op_type == "MultiHeadAttention")
    width = model.words.shape[1]
    made.graph.value_info.extend(value(name, TensorProto.FLOAT, "batch", "length", width) for name in mixed)
    return made


def _linear(graph: EncoderGraph, layer: Linear, x: str) -> str:
    """x [tokens, columns] to [tokens, rows]. Gemm where the weight is float: onnxruntime's own quantizer knows it."""
    if graph.stored(layer.weight).format is not None:
        return graph.linear(layer, x)
    return graph.op("Gemm", x, graph.weight(layer.weight), graph.weight(layer.bias), transB=1)


def _attend(graph: EncoderGraph, layer: SelfAttention, x: str, heads: int, seen: str, by_text: str) -> str:
    """x [tokens, width] to the same; `by_text`: the shape [batch, length, -1]."""
    q, k, v = (graph.op("Reshape", _linear(graph, part, x), by_text) for part in (layer.q, layer.k, layer.v))
    mixed = graph.op(
        "MultiHeadAttention", q, k, v, "", seen, domain=MICROSOFT, num_heads=heads, mask_filter_value=MASKED
    )
    return _linear(graph, layer.o, graph.op("Flatten", mixed, axis=2))


def _route(graph: EncoderGraph, layer: RoutedLayer, x: str, ids: str, epsilon: float) -> str:
    """x [tokens, width] with every token through its expert; where there is one alone, that is a plain MLP."""
    if len(layer.experts) == 1:
        return _expert(graph, layer.experts[0], x, epsilon)
    route = graph.op("Reshape", graph.op("Gather", graph.weight(layer.table), ids), graph.ints(-1))
    places, outputs = [], []
    for number, expert in enumerate(layer.experts):
        own = graph.op("NonZero", graph.op("Equal", route, graph.number(float(number))))
        places.append(graph.op("Reshape", own, graph.ints(-1, 1)))
        outputs.append(_expert(graph, expert, graph.op("GatherND", x, places[-1]), epsilon))
    every = graph.op("Concat", *places, axis=0)
    return graph.op("ScatterND", x, every, graph.op("Concat", *outputs, axis=0))


def _expert(graph: EncoderGraph, expert: BertExpert, rows: str, epsilon: float) -> str:
    inner = graph.activation("gelu", _linear(graph, expert.mlp.up, rows))
    return graph.layer_norm(
        expert.norm, graph.op("Add", rows, _linear(graph, expert.mlp.down, inner)), epsilon
    )


def _chunks(checkpoint: Checkpoint, weight: Weight) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, weight.rows, _CHUNK_ROWS):
        yield start, checkpoint.weight_rows(weight, start, min(start + _CHUNK_ROWS, weight.rows))
