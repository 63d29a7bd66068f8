"""A graph goes to DirectML only when onnxruntime's published table has a kernel for every node of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.directml_kernels import document, operators
from converters.errors import UnsupportedError
from converters.onnx.dml.kernels import FILE, check_kernels, published, refusals
from quant.recipe import Recipe
from tests.converters import onnx_support
from tests.converters.dml_support import TINY, convert, recipe_for
from tests.converters.onnx_support import uniform

HEAD = (
    "# Kernels\n## Operators implemented by DmlExecutionProvider\n\n"
    "| Op Name | Parameters | OpSet Version | Types Supported |\n"
)


def graph(
    op: str,
    inputs: dict[str, int],
    *,
    domain: str = "",
    opset: int = 21,
    outputs: int = 1,
    **attributes: object,
) -> onnx.ModelProto:
    """One node."""
    node = helper.make_node(
        op, list(inputs), [f"y{i}" for i in range(outputs)], "/node", domain=domain, **attributes
    )
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items() if name]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([node], "g", infos, []), opset_imports=opsets)


@pytest.mark.parametrize("shape", TINY)
def test_every_shape_is_covered(shape: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    for storage in ("int4", "f16", None):
        recipe = uniform(storage) if storage else recipe_for(shape)
        convert(tiny(shape), tmp_path, recipe)
        assert list(refusals(onnx.load(tmp_path / "model.onnx", load_external_data=False))) == []


def test_the_cpu_s_graph_is_refused_and_its_node_named(tiny: Callable[..., Path], tmp_path: Path) -> None:
    onnx_support.convert(tiny("phi4-mini"), tmp_path, Recipe.preset("int4"))
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    with pytest.raises(
        UnsupportedError, match=r"no kernel for /embedded \(com.microsoft GatherBlockQuantized\)"
    ):
        check_kernels(model)
    assert [line.split()[2] for line in refusals(model)] == ["GatherBlockQuantized)"]


FLOAT, HALF, INT32, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (graph("Sigmoid", {"x": TensorProto.BFLOAT16}), "x is bfloat16, not float or float16"),
        (graph("Sigmoid", {"x": TensorProto.DOUBLE}), "x is double, not float or float16"),
        (graph("Mul", {"a": FLOAT, "b": HALF}), "b is float16, another value of its type float"),
        (graph("Mul", {"a": FLOAT, "unknown": 0}), "unknown is undefined"),
        (graph("Gather", {"x": HALF, "i": TensorProto.INT16}), "i is int16, not int32 or int64"),
        (graph("Cast", {"x": FLOAT}, to=TensorProto.BFLOAT16), "y0 is bfloat16"),
        (graph("ReduceSum", {"x": INT64, "axes": INT32}), "axes is int32, not int64"),
        (graph("Cast", {"x": FLOAT}, to=HALF, opset=24), "version 24; it has 21+, 19+, 13+"),
        (graph("Swish", {"x": FLOAT}, opset=24), "ai.onnx Swish)"),
        (graph("RMSNormalization", {"x": HALF, "g": HALF}, opset=23), "ai.onnx RMSNormalization)"),
        (graph("RotaryEmbedding", {"x": HALF, "p": INT32, "c": HALF, "s": HALF}, domain="com.microsoft"),
         "p is int32, not int64"),
        (graph("MatMulNBits", {"x": HALF, "b": TensorProto.UINT8, "s": FLOAT}, domain="com.microsoft"),
         "s is float, another value of its type float16"),
        (graph("Sigmoid", {"x": FLOAT, "z": FLOAT}), "it has 2 inputs"),
        (graph("Sigmoid", {"x": FLOAT}, domain="org.example"), "org.example Sigmoid)"),
    ],
)  # fmt: skip
def test_what_no_kernel_takes_is_said(model: onnx.ModelProto, why: str) -> None:
    (refusal,) = refusals(model)
    assert refusal.startswith("/node (")
    assert why in refusal


@pytest.mark.parametrize(
    "model",
    [
        graph("Split", {"x": HALF, "sizes": INT64}, outputs=3),
        graph("Concat", {"a": HALF, "b": HALF, "c": HALF}, axis=0),
        graph("Clip", {"x": HALF, "": 0, "high": HALF}),
        graph("Cast", {"x": TensorProto.UINT8}, to=HALF),
        graph("SkipSimplifiedLayerNormalization", {"x": HALF, "s": HALF, "g": HALF}, domain="com.microsoft"),
        graph("Cast", {"x": FLOAT}, to=HALF, opset=18),
    ],
)
def test_what_a_kernel_takes_passes(model: onnx.ModelProto) -> None:
    assert list(refusals(model)) == []


def test_types_are_followed_through_the_graph() -> None:
    """Shape of anything is int64, and a kernel that wants float16 does not take it."""
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Sigmoid", ["shape"], ["y"], "/s")]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", HALF, None)],
        [],
        [numpy_helper.from_array(np.zeros(1, np.float16), "unused")],
    )
    (refusal,) = refusals(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)]))
    assert refusal == "/s (ai.onnx Sigmoid: shape is int64, not float or float16)"


def test_branches_are_looked_into() -> None:
    """With the types of the values around them; the node that holds them has the type that they give."""

    def branch(op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(op, HALF, None)
        return helper.make_graph([helper.make_node(op, ["x"], [op], f"/{op}")], op, [], [value])

    nodes = [
        helper.make_node(
            "If", ["c"], ["y"], "/if", then_branch=branch("Sigmoid"), else_branch=branch("Swish")
        ),
        helper.make_node("Tanh", ["y"], ["z"], "/tanh"),
    ]
    inputs = [helper.make_tensor_value_info(n, k, None) for n, k in (("c", TensorProto.BOOL), ("x", HALF))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, []), opset_imports=[helper.make_opsetid("", 19)]
    )
    assert list(refusals(model)) == ["/Swish (ai.onnx Swish)"]


def test_the_table_names_its_source() -> None:
    source = json.loads(FILE.read_text())["source"]
    assert source["path"] == "docs/OperatorKernels.md"
    assert len(source["commit"]) == 40
    assert source["version"] == "1.24.0"
    assert len(published()) > 190
    assert ("com.microsoft", "GatherBlockQuantized") not in published()


def test_the_table_is_read_as_it_is_published() -> None:
    table = HEAD + (
        "|---------|------------|---------------|-----------------|\n"
        "|**Operator Domain:** *ai.onnx*||||\n"
        "|Split|*in* input:**T**<br> *in* split:**tensor(int64)**<br> *out* outputs...:**T**<br><br>or<br><br>"
        "*in* input:**T**<br> *out* outputs:**T**|18+|**T** = tensor(bool), tensor(float16)|\n"
        "|||[2, 12]|**T** = seq(tensor(float)), tensor(float)|\n"
        "| |\n"
        "|**Operator Domain:** *com.microsoft*||||\n"
        "|Gelu|*in* X:**T**<br> *out* Y:**T**|1+|**T** = tensor(float)<br/> **M** = tensor(int32)|\n"
    )
    assert operators(table) == [
        {
            "domain": "",
            "op": "Split",
            "signatures": [[["T", "int64"], ["T..."]], [["T"], ["T"]]],
            "kernels": {"18+": {"T": ["bool", "float16"]}, "[2, 12]": {"T": ["float"]}},
        },
        {
            "domain": "com.microsoft",
            "op": "Gelu",
            "signatures": [[["T"], ["T"]]],
            "kernels": {"1+": {"T": ["float"], "M": ["int32"]}},
        },
    ]
    written = json.loads(document(table.encode(), "c" * 40, "1.2.3"))
    assert written["operators"] == operators(table)
    assert written["source"]["commit"] == "c" * 40
