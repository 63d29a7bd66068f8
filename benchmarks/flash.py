"""What Phi-4-mini-flash-reasoning (SambaY) costs on this machine's CPU: `python -m benchmarks.flash [--threads N]`.

At the real model's width: the state space recurrence as the Scan that is shipped and as LinearAttention, its
convolution, and the dense products of the same layer, for one token and for chunks of a prompt. Then what a
context takes, beside Phi-4-mini. Exactness is `tests/converters/test_phi4flash.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.hybrid_shapes import HYBRID_SHAPES
from benchmarks.shapes import SHAPES
from converters.onnx.graph import IR_VERSION, MICROSOFT, OPSET
from converters.onnx.mamba import one_token

REAL = HYBRID_SHAPES["phi4-flash-full"]
HIDDEN, INNER, STATES = REAL["hidden_size"], REAL["intermediate_size"], REAL["mamba_d_state"]
WIDTH, TAPS = HIDDEN * REAL["mamba_expand"], REAL["mamba_d_conv"]
TOKENS = (1, 16, 128)
RUNS = 7
RATE, OUTER, INNER_AXES = "rate", "outer_axes", "inner_axes"
_RNG = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return _RNG.standard_normal(shape, np.float32)


def session(
    threads: int,
    nodes: list[NodeProto],
    constants: dict[str, NDArray[Any]],
    inputs: dict[str, list[int | str]],
    outputs: list[str],
) -> ort.InferenceSession:
    def info(name: str, shape: list[int | str] | None) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "part",
        [info(*each) for each in inputs.items()],
        [info(name, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options)


def scan(threads: int) -> ort.InferenceSession:
    node = helper.make_node(
        "Scan",
        ["state", "d", "u", "B", "C"],
        ["new", "y"],
        body=one_token("part", RATE),
        num_scan_inputs=4,
        scan_input_axes=[1] * 4,
        scan_output_axes=[1],
    )
    axes = {OUTER: np.array([1, 3]), INNER_AXES: np.array([1, 2])}
    return session(threads, [node], {RATE: _rates(), **axes}, _recurrent([1, 1, WIDTH, STATES]), ["y", "new"])


def linear_attention(threads: int) -> ort.InferenceSession:
    """One key and one query head for all channels, a decay for each of their states."""
    nodes = [
        helper.make_node("Unsqueeze", ["d", "last"], ["wide"]),
        helper.make_node("Mul", ["wide", RATE], ["decays"]),
        helper.make_node("Reshape", ["decays", "flat"], ["decay"]),
        helper.make_node("Mul", ["d", "u"], ["value"]),
        helper.make_node(
            "LinearAttention",
            ["C", "B", "value", "state", "decay"],
            ["y", "new"],
            domain=MICROSOFT,
            q_num_heads=1,
            kv_num_heads=WIDTH,
            scale=1.0,
            update_rule="gated",
        ),
    ]
    constants = {RATE: _rates(), "last": np.array([3]), "flat": np.array([0, 0, -1])}
    return session(threads, nodes, constants, _recurrent([1, WIDTH, STATES, 1]), ["y", "new"])


def _rates() -> NDArray[np.float32]:
    return -np.tile(np.arange(1, STATES + 1, dtype=np.float32), (WIDTH, 1))


def _recurrent(state: list[int | str]) -> dict[str, list[int | str]]:
    tokens: dict[str, list[int | str]] = {
        "d": [1, "t", WIDTH], "u": [1, "t", WIDTH], "B": [1, "t", STATES], "C": [1, "t", STATES]
    }  # fmt: skip
    return {**tokens, "state": state}


def convolution(threads: int) -> ort.InferenceSession:
    node = helper.make_node(
        "CausalConvWithState",
        ["x", "weight", "bias", "past"],
        ["y", "present"],
        domain=MICROSOFT,
        activation="silu",
        channels_last=1,
    )
    constants: dict[str, NDArray[Any]] = {"weight": normal(WIDTH, 1, TAPS), "bias": normal(WIDTH)}
    inputs: dict[str, list[int | str]] = {"x": [1, "t", WIDTH], "past": [1, TAPS - 1, WIDTH]}
    return session(threads, [node], constants, inputs, ["y", "present"])


def product(threads: int, columns: int, rows: int) -> ort.InferenceSession:
    """int4 in blocks of 32, activations rounded to int8, as shipped."""
    codes = _RNG.integers(0, 256, (rows, columns // 32, 16), dtype=np.uint8)
    scales = np.full((rows, columns // 32), 0.01, np.float32)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain=MICROSOFT,
        K=columns,
        N=rows,
        bits=4,
        block_size=32,
        accuracy_level=4,
    )
    return session(threads, [node], {"codes": codes, "scales": scales}, {"x": [1, "t", columns]}, ["y"])


def milliseconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def times(threads: int) -> None:
    scanned, attended, convolved = scan(threads), linear_attention(threads), convolution(threads)
    products = {
        "in_proj": product(threads, HIDDEN, 2 * WIDTH),
        "out_proj": product(threads, WIDTH, HIDDEN),
        "mlp fc1": product(threads, HIDDEN, 2 * INNER),
        "mlp fc2": product(threads, INNER, HIDDEN),
    }
    print(f"ms at {threads} thread(s) | " + " | ".join(f"{t} token(s)" for t in TOKENS))
    rows: dict[str, list[str]] = {}
    for t in TOKENS:
        feed = {"d": np.abs(normal(1, t, WIDTH)) / 10, "u": normal(1, t, WIDTH)}
        feed |= {"B": normal(1, t, STATES), "C": normal(1, t, STATES)}
        state = normal(1, 1, WIDTH, STATES)
        by_scan = {**feed, "state": state}
        by_heads = {**feed, "state": state.reshape(1, WIDTH, STATES, 1)}
        parts: dict[str, Callable[[], Any]] = {
            "Scan": lambda feed=by_scan: scanned.run(None, feed),
            "LinearAttention": lambda feed=by_heads: attended.run(None, feed),
            "convolution": lambda t=t: convolved.run(
                None, {"x": normal(1, t, WIDTH), "past": normal(1, 3, WIDTH)}
            ),
        }
        for name, each in products.items():
            x = {"x": normal(1, t, each.get_inputs()[0].shape[2])}
            parts[name] = lambda each=each, x=x: each.run(None, x)
        for name, run in parts.items():
            rows.setdefault(name, []).append(f"{milliseconds(run):.2f}")
        differ = np.abs(parts["Scan"]()[0] - parts["LinearAttention"]()[0]).max()
        rows.setdefault("Scan - LinearAttention, largest", []).append(f"{differ:.1e}")
    for name, cells in rows.items():
        print(f"{name} | " + " | ".join(cells))


def caches() -> None:
    other = SHAPES["phi4-mini-full"]
    size = other["hidden_size"] // other["num_attention_heads"]
    dense = 4 * 2 * other["num_hidden_layers"] * other["num_key_value_heads"] * size
    count, window = REAL["num_hidden_layers"], REAL["sliding_window"]
    position = 4 * 2 * REAL["num_key_value_heads"] * 2 * (HIDDEN // REAL["num_attention_heads"])
    kept = (count // 4) * position * (window + 64) + (count // 4 + 1) * 4 * WIDTH * (STATES + TAPS - 1)
    print("context | flash MiB | Phi-4-mini MiB")
    for context in (1024, 4096, 32768):
        print(f"{context} | {(kept + position * context) >> 20} | {(dense * context) >> 20}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    times(parser.parse_args().threads)
    caches()


if __name__ == "__main__":
    main()
