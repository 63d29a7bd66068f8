"""The convolutions at the beginning of the speech encoder, window after window, so that their large images of
channels by time by frequency never stand in memory for a whole clip."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from converters.encoders import Speech
from converters.onnx.encoder_parts import EncoderGraph, value

WINDOW = 64
"""Positions of a window, 5 seconds: 50 MB of images at Phi-4-multimodal's 1024 channels."""


def subsampled(graph: EncoderGraph, speech: Speech) -> str:
    """`audio_embeds` [clips, frames, mel bins] as states [clips, positions, hidden]."""
    lengths = [graph.size("audio_embeds", 1)]
    for _ in range(1 + len(speech.subsampling)):
        lengths.append(graph.op("Div", graph.op("Add", lengths[-1], graph.ints(1)), graph.ints(2)))
    width = graph.op("Min", lengths[-1], graph.ints(WINDOW))
    last = graph.op("Sub", graph.op("Add", lengths[-1], width), graph.ints(1))
    starts = graph.op("Mul", graph.range(graph.op("Div", last, width)), width)
    frames = _windows(graph, speech, starts, width)
    flat = graph.op("Concat", graph.ints(-1), graph.op("Shape", frames, start=2), axis=0)
    every_start = graph.op("Expand", starts, graph.op("Shape", frames, end=2))
    body = graph.inside(
        "window",
        [
            value("window.frames", TensorProto.FLOAT, "frames", speech.mel_bins),
            value("window.start", TensorProto.INT64),
        ],
        [value("window.states", TensorProto.FLOAT, "positions", speech.hidden_size)],
        lambda: _window(graph, speech, lengths),
    )
    scanned = graph.op("Reshape", frames, flat), graph.op("Reshape", every_start, graph.ints(-1))
    states = graph.op("Scan", *scanned, body=body, num_scan_inputs=2)
    shape = graph.op("Concat", graph.size("audio_embeds", 0), graph.ints(-1, speech.hidden_size), axis=0)
    states = graph.op("Reshape", states, shape)
    return graph.op("Slice", states, graph.ints(0), lengths[-1], graph.ints(1))


def _windows(graph: EncoderGraph, speech: Speech, starts: str, width: str) -> str:
    """The normed frames of every window and those of the position before it, [clips, windows, frames, mel bins];
    zeros where there is no frame."""
    each = graph.ints(speech.compression)
    centred = graph.op("Sub", "audio_embeds", graph.weight(speech.mean))
    normed = graph.op("Mul", centred, graph.weight(speech.inverse_deviation))
    filled = graph.op("Mul", graph.op("Mul", graph.size(starts, 0), width), each)
    behind = graph.op("Sub", filled, graph.size("audio_embeds", 1))
    pads = graph.op("Concat", graph.ints(0), each, graph.ints(0, 0), behind, graph.ints(0), axis=0)
    inside = graph.range(graph.op("Mul", graph.op("Add", width, graph.ints(1)), each))
    first = graph.op("Unsqueeze", graph.op("Mul", starts, each), graph.ints(1))
    return graph.op("Gather", graph.op("Pad", normed, pads), graph.op("Add", first, inside), axis=1)


def _window(graph: EncoderGraph, speech: Speech, lengths: list[str]) -> None:
    """One window's states. `lengths`: of the whole clip before and after every convolution of stride 2."""
    around: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    image = graph.op("Unsqueeze", "window.frames", graph.ints(0, 1))
    first = graph.weight(speech.first.weight), graph.weight(speech.first.bias)
    image = graph.op("Relu", graph.op("Conv", image, *first, **around))
    for i, layer in enumerate(speech.subsampling):
        image = graph.op("Mul", image, _inside(graph, image, lengths[i + 1], speech.compression >> (i + 1)))
        deep = graph.weight(layer.depthwise.weight), graph.weight(layer.depthwise.bias)
        point = graph.weight(layer.pointwise.weight), graph.weight(layer.pointwise.bias)
        image = graph.op("Conv", image, *deep, group=layer.depthwise.weight.rows, **around)
        image = graph.op("Relu", graph.op("Conv", image, *point, kernel_shape=[1, 1]))
    image = graph.op("Transpose", image, perm=[0, 2, 1, 3])
    states = graph.linear(speech.subsampled, graph.op("Reshape", image, graph.ints(0, 0, -1)))
    # The first is the position before the window, which heard zeros instead of what is before it.
    states = graph.op("Slice", states, graph.ints(1), graph.size(states, 1), graph.ints(1))
    graph.node("Squeeze", [states, graph.ints(0)], "window.states")


def _inside(graph: EncoderGraph, image: str, length: str, each: int) -> str:
    """1 where a row of `image` [1, channels, rows, bands] lies within the clip's `length`, else 0: [1, rows, 1].

    `each`: rows for a position. What lies outside is what the next convolution finds around a clip: zeros.
    """
    before = graph.op("Mul", graph.op("Sub", "window.start", graph.scalar(1)), graph.scalar(each))
    row = graph.op("Add", graph.range(graph.size(image, 2)), before)
    inside = graph.op("And", graph.op("GreaterOrEqual", row, graph.scalar(0)), graph.op("Less", row, length))
    return graph.op("Unsqueeze", graph.op("Cast", inside, to=TensorProto.FLOAT), graph.ints(0, 2))
