"""A speech encoder as an ONNX graph for the CPU, with the inputs that onnxruntime-genai's pipeline gives.

Inputs `audio_embeds` (log-mel, float32 [clips, frames, mel bins]), `audio_attention_mask` (bool [clips, frames], false
for padding), `audio_sizes` (int64 [clips], features of each clip) and `audio_projection_mode` (int64 [1]: 2 speech
alone, any other speech beside an image); output `audio_features` (float32 [sum of sizes, output size]). There may be
any number of clips and frames from 1 on. A clip alone without padding is taken as the original takes it, without a mask
(`converters.speech_reference`). One stretch of positions is computed after the other (Scan), so that memory grows
neither with the clips nor with their length.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from converters.encoders import ConformerBlock, ConvModule, GatedFeedForward, Mlp, Speech
from converters.onnx.encoder_parts import EncoderGraph, value
from converters.onnx.layout import Layout
from converters.onnx.parts import gather
from converters.onnx.speech_windows import subsampled
from converters.onnx.vision_graph import ACCURACY_LEVEL

DATA_FILE = "speech.onnx.data"
SPEECH_ALONE = 2
"""onnxruntime-genai's number for the projection of a prompt with speech and no image."""


def build_speech(speech: Speech, layout: Layout, *, accuracy_level: int = ACCURACY_LEVEL) -> onnx.ModelProto:
    """The graph file of an encoder whose weights lie as `layout` says (`plan_encoder`)."""
    return _Builder(speech, EncoderGraph(layout, accuracy_level)).build()


class _Builder:
    def __init__(self, speech: Speech, graph: EncoderGraph) -> None:
        self._speech = speech
        self._graph = graph

    def build(self) -> onnx.ModelProto:
        speech, graph = self._speech, self._graph
        states = subsampled(graph, speech)
        length = graph.size(states, 1)
        stretch = graph.op("Min", length, graph.ints(speech.chunk))
        stretches = graph.op("Div", graph.op("Sub", graph.op("Add", length, stretch), graph.ints(1)), stretch)
        filled = graph.op("Mul", stretches, stretch)
        behind = graph.op("Sub", filled, length)
        states = graph.op(
            "Pad", states, graph.op("Concat", graph.ints(0, 0, 0, 0), behind, graph.ints(0), axis=0)
        )
        flat = graph.op("Concat", graph.ints(-1), stretch, axis=0)
        wide = graph.op("Concat", flat, graph.ints(speech.hidden_size), axis=0)
        bias = self._position_bias(stretch)
        body = graph.inside(
            "stretch",
            [
                value("stretch.in", TensorProto.FLOAT, "stretch", speech.hidden_size),
                value("stretch.seen", TensorProto.INT32, "stretch"),
            ],
            [value("stretch.out", TensorProto.FLOAT, "stretch", speech.hidden_size)],
            lambda: self._stretch(bias),
        )
        scanned = graph.op("Reshape", states, wide), graph.op("Reshape", self._seen(filled), flat)
        states = graph.op("Scan", *scanned, body=body, num_scan_inputs=2)
        states = graph.op("Reshape", states, graph.ints(-1, speech.hidden_size))
        self._project(graph.op("Gather", states, self._index(filled)))
        return graph.model(*self._signature(), name="speech")

    def _stretch(self, bias: str) -> None:
        graph = self._graph
        states = graph.op("Unsqueeze", "stretch.in", graph.ints(0))
        seen = graph.op("Unsqueeze", "stretch.seen", graph.ints(0))
        for block in self._speech.blocks:
            states = self._block(block, states, seen, bias)
        graph.node("Squeeze", [states, graph.ints(0)], "stretch.out")

    def _seen(self, filled: str) -> str:
        """Which positions are no padding, int32 [clips, filled]; all of them for a clip alone that has none."""
        graph, compression = self._graph, self._speech.compression
        frames = graph.op("Cast", "audio_attention_mask", to=TensorProto.INT64)
        count = graph.op("ReduceSum", frames, graph.ints(1), keepdims=1)
        rounded = graph.op("Add", count, graph.scalar(compression - 1))
        positions = graph.op("Div", rounded, graph.scalar(compression))
        seen = graph.op("Less", graph.range(filled), positions)
        alone = graph.op("Equal", graph.size("audio_embeds", 0), graph.ints(1))
        whole = graph.op("Equal", graph.op("ReduceMin", count, keepdims=0), graph.size("audio_embeds", 1))
        seen = graph.op("Or", seen, graph.op("And", alone, whole))
        return graph.op("Cast", seen, to=TensorProto.INT32)

    def _position_bias(self, stretch: str) -> str:
        """[1, heads, stretch, stretch]."""
        graph, furthest = self._graph, self._speech.max_distance
        places = graph.range(stretch)
        distance = graph.op("Sub", places, graph.op("Unsqueeze", places, graph.ints(1)))
        clipped = graph.op("Clip", distance, graph.scalar(-furthest), graph.scalar(furthest - 1))
        rows = graph.op("Add", clipped, graph.scalar(furthest))
        values = gather(graph, graph.stored(self._speech.position_bias), rows, "position_bias.values")
        by_head = graph.op("Transpose", values, perm=[2, 0, 1])
        return graph.op("Unsqueeze", by_head, graph.ints(0))

    def _block(self, block: ConformerBlock, states: str, seen: str, bias: str) -> str:
        graph, eps = self._graph, self._speech.norm_eps
        states = graph.op("Add", states, self._half(block.feed_forward_in, states))
        normed = graph.layer_norm(block.attention.norm, states, eps)
        attended = graph.attention(block.attention, normed, self._speech.heads, seen, bias)
        states = graph.op("Add", states, attended)
        states = graph.op("Add", states, self._convolved(block.conv, states))
        states = graph.op("Add", states, self._half(block.feed_forward_out, states))
        return graph.layer_norm(block.norm, states, eps)

    def _half(self, layer: GatedFeedForward, states: str) -> str:
        graph = self._graph
        both = graph.linear(layer.up_gate, graph.layer_norm(layer.norm, states, self._speech.norm_eps))
        up, gate = self._parts(layer.up_gate.weight.name, both)
        gated = graph.linear(layer.down, graph.op("Mul", up, graph.swish(gate)))
        return graph.op("Mul", gated, graph.number(0.5))

    def _convolved(self, module: ConvModule, states: str) -> str:
        graph, hidden = self._graph, self._speech.hidden_size
        both = graph.linear(module.up_gate, graph.layer_norm(module.norm, states, self._speech.norm_eps))
        up, gate = self._parts(module.up_gate.weight.name, both)
        up = graph.op("Add", up, graph.weight(module.up_bias, hidden))
        gate = graph.swish(graph.op("Add", gate, graph.weight(module.gate_bias, hidden)))
        mixed = graph.op("Transpose", graph.op("Mul", up, gate), perm=[0, 2, 1])
        kernel, bias = graph.weight(module.depthwise.weight), graph.weight(module.depthwise.bias)
        # Zeros before the first position only: no position hears a later one here.
        before = [module.depthwise.weight.shape[2] - 1, 0]
        mixed = graph.op("Conv", mixed, kernel, bias, group=hidden, pads=before)
        mixed = graph.linear(module.pointwise, graph.op("Transpose", mixed, perm=[0, 2, 1]))
        return graph.linear(module.output, graph.swish(mixed))

    def _parts(self, name: str, both: str) -> tuple[str, str]:
        outputs = [f"{name}.up", f"{name}.gate"]
        self._graph.node("Split", [both], outputs, axis=-1, num_outputs=2)
        return outputs[0], outputs[1]

    def _index(self, filled: str) -> str:
        """The positions that are features: the first `audio_sizes` of each clip's `filled`."""
        graph = self._graph
        ends = graph.op("CumSum", "audio_sizes", graph.scalar(0))
        place = graph.range(graph.op("ReduceSum", "audio_sizes", graph.ints(0), keepdims=1))
        clip = graph.place(place, ends)
        start = graph.op("Gather", graph.op("Sub", ends, "audio_sizes"), clip)
        return graph.op("Add", graph.op("Mul", clip, filled), graph.op("Sub", place, start))

    def _project(self, kept: str) -> None:
        graph, speech = self._graph, self._speech
        alone = graph.op("Equal", "audio_projection_mode", graph.ints(SPEECH_ALONE))

        def branch(name: str, layers: Mlp) -> onnx.GraphProto:
            output = value(f"{name}.features", TensorProto.FLOAT, "features", speech.output_size)
            return graph.inside(
                name,
                [],
                [output],
                lambda: graph.node("Identity", [graph.mlp(layers, kept, "gelu")], output.name),
            )

        branches = {
            "then_branch": branch("speech_alone", speech.speech_projection),
            "else_branch": branch("speech_beside_image", speech.vision_projection),
        }
        graph.node("If", [alone], "audio_features", **branches)

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        speech = self._speech
        inputs = [
            value("audio_embeds", TensorProto.FLOAT, "clips", "frames", speech.mel_bins),
            value("audio_attention_mask", TensorProto.BOOL, "clips", "frames"),
            value("audio_sizes", TensorProto.INT64, "clips"),
            value("audio_projection_mode", TensorProto.INT64, 1),
        ]
        return inputs, [value("audio_features", TensorProto.FLOAT, "features", speech.output_size)]
