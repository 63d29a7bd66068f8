"""Whether DirectML has a kernel for every node of a graph, by onnxruntime's own published table.

kernels.json is that table as data (`python -m benchmarks.directml_kernels` writes it and names its source there). A
node is looked up by domain and name, by the opset version that its schema stems from, and by the element type of
every input and output. That a kernel exists does not say that it computes what the operator's schema says: what is
known of that is in `converters.onnx.dml.limits`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from converters.errors import UnsupportedError

FILE = Path(__file__).with_name("kernels.json")


@cache
def published() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Entries by (domain, operator): `signatures` and, by the versions that they are for, `kernels`."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    return {(each["domain"], each["op"]): each for each in table["operators"]}


def check_kernels(model: onnx.ModelProto) -> None:
    """UnsupportedError that names the first node for which DirectML has no kernel."""
    for refusal in refusals(model):
        raise UnsupportedError(
            f"DirectML has no kernel for {refusal}", hint="convert it for the CPU: --target cpu"
        )


def refusals(model: onnx.ModelProto) -> Iterator[str]:
    """One line a node that the table does not cover; of a graph with branches, the node that branches."""
    graph = model.graph
    opsets = {each.domain: each.version for each in model.opset_import}
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        what = f"{node.name or node.output[0]} ({node.domain or 'ai.onnx'} {node.op_type}"
        entry = published().get((node.domain, node.op_type))
        if entry is None:
            yield f"{what})"
            continue
        since = _since(node, opsets.get(node.domain, 1))
        types = next((entry["kernels"][v] for v in entry["kernels"] if _covers(v, since)), None)
        if types is None:
            yield f"{what}, version {since}; it has {', '.join(entry['kernels'])})"
            continue
        misfits = [_misfit(node, kinds, signature[0], types) for signature in entry["signatures"]]
        if None not in misfits:
            yield f"{what}: {misfits[0]})"
            continue
        _note_outputs(node, kinds, entry["signatures"][misfits.index(None)], types)


def _since(node: onnx.NodeProto, opset: int) -> int:
    """The opset version that brought the node's schema; 1 for operators that only onnxruntime knows."""
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)
    except onnx.defs.SchemaError:
        return 1


def _covers(versions: str, since: int) -> bool:
    """As onnxruntime looks kernels up: "13+" is for version 13 alone, an explicit range for all within it."""
    numbers = [int(number) for number in re.findall(r"\d+", versions)]
    return numbers[0] <= since <= numbers[-1]


def _misfit(
    node: onnx.NodeProto, kinds: Mapping[str, int], inputs: Sequence[str], types: Mapping[str, Sequence[str]]
) -> str | None:
    """What of the node's inputs a signature does not take; None when it takes them all."""
    parameters = _of_length(inputs, len(node.input))
    if len(node.input) > len(parameters):
        return f"it has {len(node.input)} inputs"
    bound: dict[str, int] = {}
    for name, parameter in zip(node.input, parameters, strict=False):
        kind = kinds.get(name, TensorProto.UNDEFINED)
        taken = _taken(parameter, types)
        if name and taken and _text(kind) not in taken:
            return f"{name} is {_text(kind)}, not {' or '.join(taken)}"
        if name and bound.setdefault(parameter, kind) != kind:
            return f"{name} is {_text(kind)}, and another input {_text(bound[parameter])}"
    return None


def _note_outputs(
    node: onnx.NodeProto,
    kinds: dict[str, int],
    signature: Sequence[Sequence[str]],
    types: Mapping[str, Sequence[str]],
) -> None:
    """An output has the type of the input that shares its variable, of the attribute `to`, or the only one there is."""
    inputs, outputs = signature
    shared = dict(zip(_of_length(inputs, len(node.input)), node.input, strict=False))
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    for name, parameter in zip(node.output, _of_length(outputs, len(node.output)), strict=False):
        only = _taken(parameter, types)
        if parameter in shared:
            kinds[name] = kinds[shared[parameter]]
        elif to is not None:
            kinds[name] = int(to)
        elif len(only) == 1:
            kinds[name] = int(TensorProto.DataType.Value(only[0].upper()))


def _taken(parameter: str, types: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Element types that a parameter takes; none where the table does not say. Type variables begin with a capital."""
    return types.get(parameter, [] if parameter[:1].isupper() else [parameter])


def _of_length(parameters: Sequence[str], count: int) -> list[str]:
    """The last of a signature's parameters may stand for many."""
    plain = [parameter.removesuffix("...") for parameter in parameters]
    many = len(plain) == 1 or (bool(parameters) and parameters[-1].endswith("..."))
    return plain + plain[-1:] * (count - len(plain)) if many else plain


def _text(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
