"""A small builder of ONNX graphs whose weights lie in `model.onnx.data`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.onnx.layout import Layout
from converters.onnx.tensors import Tensor

MICROSOFT = "com.microsoft"
OPSET, IR_VERSION = 21, 10
"""Opset 21 is the first with everything used here; IR 10 is what belongs to it (ONNX, docs/Versioning.md)."""

_ONNX_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(np.uint8): TensorProto.UINT8,
}


class Graph:
    """Nodes in order of use; a value is known by its name."""

    def __init__(
        self, layout: Layout, *others: Layout, opset: int = OPSET, ir_version: int = IR_VERSION
    ) -> None:
        """Of all data files that its weights lie in; no two of them have a tensor of one name."""
        self._layouts = {name: each for each in (layout, *others) for name in each.offsets}
        self._opset, self._ir_version = opset, ir_version
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def node(
        self, op: str, inputs: list[str], outputs: list[str] | str, *, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node; returns the name of its first output."""
        names = [outputs] if isinstance(outputs, str) else outputs
        self._nodes.append(
            helper.make_node(op, inputs, names, name=f"/{names[0]}", domain=domain, **attributes)
        )
        return names[0]

    def inside(
        self,
        name: str,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        add: Callable[[], object],
    ) -> onnx.GraphProto:
        """The graph of an attribute (of Scan or If) with the nodes that `add` adds; it sees the values around it, and
        every constant and tensor stays outside."""
        around, self._nodes = self._nodes, []
        add()
        nodes, self._nodes = self._nodes, around
        return helper.make_graph(nodes, name, inputs, outputs)

    def constant(self, name: str, values: Any) -> str:
        """A small tensor inside the graph file: an array as it is, other values as int64."""
        array = values if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def external(
        self,
        tensor: Tensor,
        *,
        name: str | None = None,
        dims: tuple[int, ...] | None = None,
        kind: int | None = None,
        nbytes: int | None = None,
    ) -> str:
        """A tensor of the data file; under another name, shape or ONNX type it is a second view of the same bytes, or
        with `nbytes` of the first of them."""
        name = name or tensor.name
        proto = TensorProto(
            name=name,
            data_type=_ONNX_TYPES[tensor.dtype] if kind is None else kind,
            dims=dims or tensor.dims,
            data_location=TensorProto.EXTERNAL,
        )
        layout = self._layouts[tensor.name]
        where = {
            "location": layout.file,
            "offset": str(layout.offsets[tensor.name]),
            "length": str(tensor.nbytes if nbytes is None else nbytes),
        }
        for key, value in where.items():
            proto.external_data.add(key=key, value=value)
        self._initializers[name] = proto
        return name

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        name: str = "decoder",
    ) -> onnx.ModelProto:
        """The whole graph; ValueError when two values have one name."""
        made = [name for node in self._nodes for name in node.output if name]
        if len({*made, *self._initializers}) < len(made) + len(self._initializers):
            raise ValueError("two values of the graph have one name")
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._initializers.values()))
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=self._ir_version, producer_name="edge"
        )
