"""What the decoder takes instead of tokens, as an ONNX graph: rows of its embedding, and features in their places.

Inputs `input_ids` (int64 [batch, tokens]) and, for each encoder, `image_features` or `audio_features` (float32
[features, hidden], none for a prompt without); output `inputs_embeds` (float32 [batch, tokens, hidden]). The n-th
place of a modality, the batch's rows one after the other, takes its n-th feature. The embedding is the decoder's, byte
for byte: this graph names the decoder's data file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from converters.multimodal import Multimodal
from converters.onnx.encoder_parts import EncoderGraph, value
from converters.onnx.layout import Layout
from converters.onnx.parts import gather


def build_embedding(model: Multimodal, layout: Layout) -> onnx.ModelProto:
    """The graph file. `layout`: of the data file that holds the decoder's embedding."""
    decoder = model.decoder
    graph = EncoderGraph(layout, accuracy_level=0)
    features = {
        name: encoder.token_id
        for name, encoder in (("image_features", model.vision), ("audio_features", model.speech))
        if encoder is not None
    }
    places = {name: _places(graph, token) for name, token in features.items()}
    ids = "input_ids"
    if None in features.values():
        # What is no row of the embedding must not reach it.
        ids = graph.op("Max", ids, graph.scalar(0))
    embedded = gather(graph, graph.stored(decoder.embedding), ids, "embedded")
    for name, here in places.items():
        embedded = _put(graph, embedded, name, here, decoder.hidden_size)
    graph.node("Identity", [embedded], "inputs_embeds")
    inputs = [value("input_ids", TensorProto.INT64, "batch", "tokens")]
    inputs += [value(name, TensorProto.FLOAT, f"{name}.rows", decoder.hidden_size) for name in features]
    output = value("inputs_embeds", TensorProto.FLOAT, "batch", "tokens", decoder.hidden_size)
    return graph.model(inputs, [output], name="embedding")


def _places(graph: EncoderGraph, token: int | None) -> str:
    """Which input ids stand for a feature, bool [batch, tokens]."""
    if token is None:
        return graph.op("Less", "input_ids", graph.scalar(0))
    return graph.op("Equal", "input_ids", graph.scalar(token))


def _put(graph: EncoderGraph, embedded: str, features: str, here: str, hidden: int) -> str:
    """`embedded` with the features at the places `here`. A row of zeros before them makes none of them legal."""
    zeros = graph.constant("zeros", np.zeros((1, hidden), np.float32))
    table = graph.op("Concat", zeros, features, axis=0)
    counted = graph.op("Cast", here, to=TensorProto.INT64)
    number = graph.op("CumSum", graph.op("Reshape", counted, graph.ints(-1)), graph.scalar(0))
    number = graph.op("Mul", graph.op("Reshape", number, graph.op("Shape", here)), counted)
    return graph.op(
        "Where", graph.op("Unsqueeze", here, graph.ints(2)), graph.op("Gather", table, number), embedded
    )
