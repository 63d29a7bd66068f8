"""A vision encoder as an ONNX graph for the CPU, with the inputs that onnxruntime-genai's pipelines give.

Inputs `pixel_values` (float32 [images, crops, 3, size, size]), `image_sizes` (int64 [images, 2], pixels) and, for an
encoder with a mask of patches, `image_attention_mask` (float32 [images, crops, side, side], 0 for padding); output
`image_features` (float32 [all features, output size]). There may be any number of images from 1 on, and of crops;
crops that only fill up an image with fewer are not computed. One crop is computed after the other (Scan), so that
memory does not grow with their number.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from converters.encoders import Vision
from converters.onnx.encoder_parts import EncoderGraph, value
from converters.onnx.image_grid import ImageGrid
from converters.onnx.layout import Layout
from converters.onnx.parts import gather

DATA_FILE = "vision.onnx.data"
ACCURACY_LEVEL = 4
"""As the decoder's: MatMulNBits rounds activations to int8 in blocks; 0 keeps them in float32."""


def build_vision(vision: Vision, layout: Layout, *, accuracy_level: int = ACCURACY_LEVEL) -> onnx.ModelProto:
    """The graph file of an encoder whose weights lie as `layout` says (`plan_encoder`)."""
    return _Builder(vision, EncoderGraph(layout, accuracy_level)).build()


class _Builder:
    def __init__(self, vision: Vision, graph: EncoderGraph) -> None:
        self._vision = vision
        self._graph = graph
        self._half = vision.side // 2

    def build(self) -> onnx.ModelProto:
        vision, graph = self._vision, self._graph
        grid = ImageGrid(graph, vision)
        pixels = self._picked("pixel_values", grid.crops, 3, vision.crop_size, vision.crop_size)
        seen = ""
        if vision.patch_mask:
            mask = self._picked("image_attention_mask", grid.crops, vision.side, vision.side)
            seen = graph.op("Cast", mask, to=TensorProto.BOOL)
        features = self._encoded(pixels, seen)
        width = graph.ints(-1, vision.feature_size)
        table = graph.op(
            "Concat",
            graph.op("Reshape", features, width),
            graph.weight(vision.row_end, 1, vision.feature_size),
            graph.weight(vision.separator, 1, vision.feature_size),
            axis=0,
        )
        merged = graph.op("Gather", table, grid.index(features, seen))
        graph.node("Identity", [graph.mlp(vision.projection, merged, "gelu")], "image_features")
        return graph.model(*self._signature(), name="vision")

    def _picked(self, name: str, crops: str, *shape: int) -> str:
        """The crops in use of an input [images, crops, ...]: [used crops, ...]."""
        graph = self._graph
        return graph.op("Gather", graph.op("Reshape", name, graph.ints(-1, *shape)), crops)

    def _encoded(self, pixels: str, seen: str) -> str:
        """Features before the projection, [used crops, side * side / 4, feature size]."""
        vision, graph = self._vision, self._graph
        size, side = vision.crop_size, vision.side
        inputs = [value("crop", TensorProto.FLOAT, 3, size, size)]
        if seen:
            inputs.append(value("crop.seen", TensorProto.BOOL, side, side))
        shape = (self._half**2, vision.feature_size)
        output = value("crop.features", TensorProto.FLOAT, *shape)
        body = graph.inside("crop", inputs, [output], lambda: self._crop("crop.seen" if seen else ""))
        states = [pixels, seen] if seen else [pixels]
        return graph.op("Scan", *states, body=body, num_scan_inputs=len(states))

    def _crop(self, seen: str) -> None:
        vision, graph = self._vision, self._graph
        hidden = self._embedded(seen)
        keys = ""
        if seen:
            flat = graph.op("Reshape", seen, graph.ints(1, -1))
            keys = graph.op("Cast", flat, to=TensorProto.INT32)
        for layer in vision.layers:
            normed = graph.layer_norm(layer.attention.norm, hidden, vision.norm_eps)
            attended = graph.attention(layer.attention, normed, vision.heads, keys)
            hidden = graph.op("Add", hidden, attended)
            normed = graph.layer_norm(layer.mlp_norm, hidden, vision.norm_eps)
            hidden = graph.op("Add", hidden, graph.mlp(layer.mlp, normed, vision.activation))
        if vision.class_token is not None:
            hidden = graph.op("Slice", hidden, graph.ints(1), graph.ints(vision.side**2 + 1), graph.ints(1))
        half = self._half
        blocks = graph.op("Reshape", hidden, graph.ints(half, 2, half, 2, vision.hidden_size))
        if vision.merge == "average":
            merged = graph.op("ReduceMean", blocks, graph.ints(1, 3), keepdims=0)
        else:
            merged = graph.op("Transpose", blocks, perm=[0, 2, 1, 3, 4])
        shape = graph.ints(half * half, vision.feature_size)
        graph.node("Reshape", [merged, shape], "crop.features")

    def _embedded(self, seen: str) -> str:
        """Patches and their positions, [1, positions, hidden]."""
        vision, graph = self._vision, self._graph
        inputs = [graph.op("Unsqueeze", "crop", graph.ints(0)), graph.weight(vision.patch)]
        if vision.patch_bias is not None:
            inputs.append(graph.weight(vision.patch_bias))
        stride = [vision.patch_size, vision.patch_size]
        patches = graph.op("Conv", *inputs, strides=stride, kernel_shape=stride)
        patches = graph.op("Reshape", patches, graph.ints(1, vision.hidden_size, -1))
        patches = graph.op("Transpose", patches, perm=[0, 2, 1])
        if vision.class_token is not None:
            token = graph.weight(vision.class_token, 1, 1, vision.hidden_size)
            patches = graph.op("Concat", token, patches, axis=1)
        rows = self._masked_positions(seen) if seen else graph.ints(*range(vision.position.rows))
        positions = gather(graph, graph.stored(vision.position), rows, "crop.positions")
        hidden = graph.op("Add", patches, positions)
        if vision.first_norm is not None:
            hidden = graph.layer_norm(vision.first_norm, hidden, vision.norm_eps)
        return hidden

    def _masked_positions(self, seen: str) -> str:
        """Rows of the position table for one crop, from a table of what they are for each number of seen patches."""
        graph, side = self._graph, self._vision.side
        table = graph.constant("buckets", _buckets(side))
        counts = graph.op("Cast", seen, to=TensorProto.INT64)
        first_column = graph.op("Gather", counts, graph.scalar(0), axis=1)
        first_row = graph.op("Gather", counts, graph.scalar(0), axis=0)
        rows, columns = (
            graph.op("Gather", table, graph.op("ReduceSum", line, graph.ints(0), keepdims=0))
            for line in (first_column, first_row)
        )
        rows = graph.op("Mul", graph.op("Unsqueeze", rows, graph.ints(1)), graph.scalar(side))
        ids = graph.op("Where", seen, graph.op("Add", rows, columns), graph.scalar(0))
        return graph.op("Reshape", ids, graph.ints(-1))

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        vision = self._vision
        size, side = vision.crop_size, vision.side
        inputs = [value("pixel_values", TensorProto.FLOAT, "images", "crops", 3, size, size)]
        if vision.patch_mask:
            inputs.append(value("image_attention_mask", TensorProto.FLOAT, "images", "crops", side, side))
        inputs.append(value("image_sizes", TensorProto.INT64, "images", 2))
        return inputs, [value("image_features", TensorProto.FLOAT, "features", vision.output_size)]


def _buckets(side: int) -> NDArray[np.int64]:
    """Row or column of the position table for each of `side` patches when `n` of them are seen, [n, patch].

    patch / n on the table's grid, in float32 as the original takes it: 1 / n first, then the product.
    """
    seen = np.maximum(np.arange(side + 1), 1).astype(np.float32)
    part = np.arange(side, dtype=np.float32) * (np.float32(1) / seen)[:, None]
    part = np.minimum(part, np.float32(1 - 1e-6))
    boundaries = np.arange(1, side, dtype=np.float32) / np.float32(side)
    return np.asarray((part[..., None] >= boundaries).sum(axis=-1), np.int64)
