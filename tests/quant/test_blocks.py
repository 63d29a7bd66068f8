"""One choice of codes, every format: the packed bytes hold it, and other people's readers agree on the values."""

from __future__ import annotations

import gguf
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from gguf.quants import dequantize as gguf_dequantize
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quant import blocks as codec
from quant.blocks import BLOCK, FORMATS, INT4, INT4_ASYM, INT5, INT8, BlockFormat, Blocks

EVERY = pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))
IN_ONNX = pytest.mark.parametrize("fmt", [f for f in FORMATS.values() if f.in_onnx], ids=lambda f: f.name)


def random_blocks(fmt: BlockFormat, rows: int, nblocks: int, seed: int = 0) -> Blocks:
    """Every code, and scales over the whole float16 range, denormals and either sign included."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << fmt.bits, (rows, nblocks * BLOCK), dtype=np.uint8)
    if fmt.symmetric:
        bits = rng.integers(0, 0x7C00, (rows, nblocks)).astype(np.uint16)
        bits |= rng.integers(0, 2, bits.shape).astype(np.uint16) << 15
        return Blocks(fmt, codes, bits.view(np.float16))
    significand = rng.integers(0, 128, (rows, nblocks)).astype(np.float32)
    scales = np.ldexp(significand, rng.integers(-24, 5, (rows, nblocks))).astype(np.float16)
    zeros = rng.integers(0, 16, (rows, nblocks), dtype=np.uint8)
    return Blocks(fmt, codes, scales, np.where(scales == 0, 0, zeros).astype(np.uint8))


def assert_same(a: Blocks, b: Blocks) -> None:
    assert a.format == b.format
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.scales.view(np.uint16), b.scales.view(np.uint16))
    if a.zeros is None:
        assert b.zeros is None
    else:
        assert b.zeros is not None
        np.testing.assert_array_equal(a.zeros, b.zeros)


@EVERY
@pytest.mark.parametrize("nblocks", [1, 2, 5])
def test_both_formats_hold_the_same_codes(fmt: BlockFormat, nblocks: int) -> None:
    blocks = random_blocks(fmt, 7, nblocks)
    assert_same(codec.from_gguf(fmt, codec.to_gguf(blocks)), blocks)
    if fmt.in_onnx:
        assert_same(codec.from_matmulnbits(fmt, *codec.to_matmulnbits(blocks)), blocks)


@EVERY
def test_packers_of_a_row_slice_give_the_slice(fmt: BlockFormat) -> None:
    blocks = random_blocks(fmt, 9, 3)
    part = Blocks(
        fmt, blocks.codes[2:5], blocks.scales[2:5], None if blocks.zeros is None else blocks.zeros[2:5]
    )
    np.testing.assert_array_equal(codec.to_gguf(part), codec.to_gguf(blocks)[2:5])
    if not fmt.in_onnx:
        return
    for whole, sliced in zip(codec.to_matmulnbits(blocks), codec.to_matmulnbits(part), strict=True):
        if whole is not None:
            np.testing.assert_array_equal(sliced, whole[2:5])


@EVERY
def test_the_compiled_packer_is_the_numpy_packer(fmt: BlockFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    assert codec.KERNEL, "the kernel is part of a development install: pip install -e ."
    blocks = random_blocks(fmt, 11, 4)
    compiled = codec.to_gguf(blocks)
    monkeypatch.setattr(codec, "KERNEL", False)
    np.testing.assert_array_equal(codec.to_gguf(blocks), compiled)


@EVERY
def test_gguf_package_reads_the_same_values(fmt: BlockFormat) -> None:
    blocks = random_blocks(fmt, 16, 6)
    theirs = gguf_dequantize(codec.to_gguf(blocks), gguf.GGMLQuantizationType[fmt.gguf_type])
    np.testing.assert_array_equal(theirs, codec.dequantize(blocks))


@IN_ONNX
def test_matmulnbits_reads_the_same_values(fmt: BlockFormat) -> None:
    blocks = random_blocks(fmt, 12, 3)
    weights, scales, zeros = codec.to_matmulnbits(blocks)
    n, k = blocks.codes.shape
    feeds = {"w": weights, "s": scales.astype(np.float32)} | ({} if zeros is None else {"z": zeros})
    node = helper.make_node(
        "MatMulNBits", ["x", *feeds], ["y"], domain="com.microsoft",
        K=k, N=n, bits=fmt.bits, block_size=BLOCK, accuracy_level=0,
    )  # fmt: skip
    # A row of the identity picks one weight: the other products are zero, so the float sum is exact.
    theirs = run_node(node, feeds, {"x": np.eye(k, dtype=np.float32)})
    np.testing.assert_array_equal(theirs.T, codec.dequantize(blocks))


@IN_ONNX
def test_gather_block_quantized_reads_the_same_values(fmt: BlockFormat) -> None:
    blocks = random_blocks(fmt, 12, 3)
    weights, scales, zeros = codec.to_matmulnbits(blocks)
    feeds = {"w": weights.reshape(12, -1), "s": scales.astype(np.float32)}
    if zeros is not None:
        feeds["z"] = zeros
    inputs = ["w", "ids", "s", *(["z"] if zeros is not None else [])]
    node = helper.make_node(
        "GatherBlockQuantized", inputs, ["y"], domain="com.microsoft",
        bits=fmt.bits, block_size=BLOCK, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    order = np.array([11, 0, 5, 5], np.int64)
    theirs = run_node(node, feeds, {"ids": order})
    np.testing.assert_array_equal(theirs, codec.dequantize(blocks)[order])


@IN_ONNX
def test_dequantize_linear_reads_the_same_values(fmt: BlockFormat) -> None:
    """ONNX's own blocked DequantizeLinear (opset 21), with an explicit zero point."""
    blocks = random_blocks(fmt, 4, 3)
    zeros = blocks.zeros
    if zeros is None:
        zeros = np.full(blocks.scales.shape, 1 << (fmt.bits - 1), np.uint8)
    kind = TensorProto.UINT4 if fmt.bits == 4 else TensorProto.UINT8
    initializers = [
        helper.make_tensor("c", kind, blocks.codes.shape, blocks.codes.ravel().tolist()),
        onnx.numpy_helper.from_array(blocks.scales.astype(np.float32), "s"),
        helper.make_tensor("z", kind, zeros.shape, zeros.ravel().tolist()),
    ]
    node = helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"], axis=1, block_size=BLOCK)
    np.testing.assert_array_equal(run_node(node, initializers, {}), codec.dequantize(blocks))


def test_zero_point_times_scale_is_exact_for_seven_bits() -> None:
    """Every 7-bit significand, zero point and exponent that a finite product has."""
    z, m, e = np.meshgrid(np.arange(16), np.arange(128), np.arange(-24, 5), indexing="ij")
    exact = z * np.ldexp(m.astype(np.float64), e)
    assert np.array_equal(exact[exact <= 65504].astype(np.float16).astype(np.float64), exact[exact <= 65504])


def test_a_q4_1_minimum_off_the_grid_is_refused() -> None:
    data = codec.to_gguf(random_blocks(INT4_ASYM, 1, 1))
    data[0, :4] = np.array([1.0, -3.5], "<f2").view(np.uint8)
    with pytest.raises(ValueError, match="whole multiple"):
        codec.from_gguf(INT4_ASYM, data)


def test_parts_that_do_not_fit_are_refused() -> None:
    codes, scales = np.zeros((2, 64), np.uint8), np.zeros((2, 2), np.float16)
    with pytest.raises(ValueError, match="no multiple of 32"):
        Blocks(INT4, codes[:, :63], scales)
    with pytest.raises(ValueError, match="scales"):
        Blocks(INT4, codes, scales[:, :1])
    with pytest.raises(ValueError, match="zeros"):
        Blocks(INT4_ASYM, codes, scales)
    with pytest.raises(ValueError, match="zeros"):
        Blocks(INT8, codes, scales, np.zeros((2, 2), np.uint8))


def test_onnxruntime_has_no_matmulnbits_of_five_bits() -> None:
    """Why int5 is refused for ONNX; the day this fails, int5 can be packed."""
    blocks = random_blocks(INT5, 4, 2)
    with pytest.raises(ValueError, match="5 bits"):
        codec.to_matmulnbits(blocks)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft",
        K=64, N=4, bits=5, block_size=BLOCK, accuracy_level=0,
    )  # fmt: skip
    feeds = {"w": np.zeros((4, 2, 20), np.uint8), "s": np.ones((4, 2), np.float32)}
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="matmul_nbits"):
        run_node(node, feeds, {"x": np.eye(64, dtype=np.float32)})


def run_node(
    node: onnx.NodeProto,
    initializers: dict[str, NDArray[np.generic]] | list[onnx.TensorProto],
    inputs: dict[str, NDArray[np.generic]],
) -> NDArray[np.float32]:
    """One node in onnxruntime on the CPU, as it is written: no graph optimization."""
    if isinstance(initializers, dict):
        initializers = [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()]
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, inputs)
    return np.asarray(result)
