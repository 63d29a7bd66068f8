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
Types = Mapping[str, Sequence[str]]
"""What a kernel's type variables may be. A variable begins with a capital letter, a type does not."""

_UNJUDGED = -1
"""The type of what a refused node gives: one refusal is not the next one's reason."""


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
    """One line a node that the table does not cover, in the order of the nodes, those of branches included."""
    return _refusals(model.graph, {each.domain: each.version for each in model.opset_import}, {})


def _refusals(graph: onnx.GraphProto, opsets: Mapping[str, int], outer: Mapping[str, int]) -> Iterator[str]:
    kinds = {**outer, **{tensor.name: tensor.data_type for tensor in graph.initializer}}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        for branch in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            yield from _refusals(branch, opsets, kinds)
            # A branch says what comes out of the node that holds it.
            outputs = zip(node.output, branch.output, strict=False)
            kinds |= {name: value.type.tensor_type.elem_type for name, value in outputs}
        why = _judge(node, opsets.get(node.domain, 1), kinds)
        if why is not None:
            yield f"{node.name or node.output[0]} ({node.domain or 'ai.onnx'} {node.op_type}{why})"
            kinds |= dict.fromkeys(node.output, _UNJUDGED)


def _judge(node: onnx.NodeProto, opset: int, kinds: dict[str, int]) -> str | None:
    """Why no kernel takes the node, "" where there is none by that name; None when one does, and `kinds` then has
    the types of its outputs."""
    entry = published().get((node.domain, node.op_type))
    if entry is None:
        return ""
    since, many = _schema(node, opset)
    types = next(
        (entry["kernels"][versions] for versions in entry["kernels"] if _covers(versions, since)), None
    )
    if types is None:
        return f", version {since}; it has {', '.join(entry['kernels'])}"
    unjudged = any(kinds.get(name) == _UNJUDGED for name in node.input)
    unknown = _UNJUDGED if unjudged else TensorProto.UNDEFINED
    reasons = []
    for inputs, outputs in entry["signatures"]:
        bound: dict[str, int] = {}
        taken = _parameters(inputs, len(node.input), many=many)
        made = _parameters(outputs, len(node.output), many=True)
        reason = _bind(node.input, taken, kinds, types, bound)
        if reason is None:
            pairs = zip(node.output, made, strict=False)
            found = {n: kinds.get(n, _made(node, each, types, bound, unknown)) for n, each in pairs}
            reason = _bind(node.output, made, found, types, bound)
        if reason is None:
            kinds |= found
            return None
        reasons.append(reason)
    return f": {reasons[0]}"


def _schema(node: onnx.NodeProto, opset: int) -> tuple[int, bool]:
    """The opset version that brought the node's schema, and whether its last input stands for many. Operators that
    only onnxruntime knows are all of version 1."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return 1, False
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return int(schema.since_version), bool(schema.inputs) and schema.inputs[-1].option == variadic


def _covers(versions: str, since: int) -> bool:
    """As onnxruntime looks kernels up: "13+" is for version 13 alone, an explicit range for all within it."""
    numbers = [int(number) for number in re.findall(r"\d+", versions)]
    return numbers[0] <= since <= numbers[-1]


def _parameters(published: Sequence[str], count: int, *, many: bool) -> list[str]:
    """One for each of `count` values, the last repeated where it stands for `many`."""
    plain = [parameter.removesuffix("...") for parameter in published]
    return plain + plain[-1:] * (count - len(plain)) if many else plain


def _bind(
    names: Sequence[str],
    parameters: Sequence[str],
    kinds: Mapping[str, int],
    types: Types,
    bound: dict[str, int],
) -> str | None:
    """Give the type variables their types; or why these values are not what the parameters ask for."""
    if len(names) > len(parameters):
        return f"it has {len(names)} inputs"
    for name, parameter in zip(names, parameters, strict=False):
        kind = kinds.get(name, TensorProto.UNDEFINED)
        allowed = _allowed(parameter, types)
        if kind == _UNJUDGED:
            continue
        if name and allowed and _text(kind) not in allowed:
            return f"{name} is {_text(kind)}, not {' or '.join(allowed)}"
        if name and bound.setdefault(parameter, kind) != kind:
            return f"{name} is {_text(kind)}, another value of its type {_text(bound[parameter])}"
    return None


def _made(
    node: onnx.NodeProto, parameter: str, types: Types, bound: Mapping[str, int], otherwise: int
) -> int:
    """The type of an output: that of the inputs of its variable, of the attribute `to`, or the only one there is."""
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    allowed = _allowed(parameter, types)
    if parameter in bound:
        return bound[parameter]
    if to is not None:
        return int(to)
    return int(TensorProto.DataType.Value(allowed[0].upper())) if len(allowed) == 1 else otherwise


def _allowed(parameter: str, types: Types) -> Sequence[str]:
    """Names of element types; none where the table does not say."""
    return types.get(parameter, [] if parameter[:1].isupper() else [parameter])


def _text(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
