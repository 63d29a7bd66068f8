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
from converters.onnx.encoder_parts import EncoderGraph, plan_encoder, value
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
    x = graph.layer_norm(model.norm, x, model.norm_eps)
    seen = graph.op("Cast", mask, to=TensorProto.INT32)
    for layer in model.layers:
        attended = graph.attention(layer.attention, x, model.heads, seen)
        x = graph.layer_norm(layer.attention.norm, graph.op("Add", x, attended), model.norm_eps)
        x = _route(graph, layer, x, ids, model.norm_eps)
    first = graph.op("Gather", x, graph.scalar(0), axis=1)
    pooled = graph.op("Tanh", graph.linear(model.pooler, first))
    graph.node("Identity", [graph.linear(model.classifier, pooled)], "logits")
    inputs = [value(name, TensorProto.INT64, "batch", "length") for name in INPUTS]
    return graph.model(inputs, [value("logits", TensorProto.FLOAT, "batch", model.classes)], name="encoder")


def _route(graph: EncoderGraph, layer: RoutedLayer, x: str, ids: str, epsilon: float) -> str:
    """x [batch, length, width] with every token through its expert."""
    tokens = graph.op("Flatten", x, axis=2)
    route = graph.op("Reshape", graph.op("Gather", graph.weight(layer.table), ids), graph.ints(-1))
    places, outputs = [], []
    for number, expert in enumerate(layer.experts):
        own = graph.op("NonZero", graph.op("Equal", route, graph.number(float(number))))
        places.append(graph.op("Reshape", own, graph.ints(-1, 1)))
        rows = graph.op("GatherND", tokens, places[-1])
        outputs.append(_expert(graph, expert, rows, epsilon))
    every = graph.op("Concat", *places, axis=0)
    done = graph.op("ScatterND", tokens, every, graph.op("Concat", *outputs, axis=0))
    return graph.op("Reshape", done, graph.op("Shape", x))


def _expert(graph: EncoderGraph, expert: BertExpert, rows: str, epsilon: float) -> str:
    return graph.layer_norm(expert.norm, graph.op("Add", rows, graph.mlp(expert.mlp, rows, "gelu")), epsilon)


def _chunks(checkpoint: Checkpoint, weight: Weight) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, weight.rows, _CHUNK_ROWS):
        yield start, checkpoint.weight_rows(weight, start, min(start + _CHUNK_ROWS, weight.rows))
