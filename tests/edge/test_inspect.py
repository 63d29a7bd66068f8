"""`edge inspect` against the formats' own libraries, and on files that lie."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gguf
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from converters.errors import EdgeError
from edge.convert import ConvertRequest, convert, plan
from edge.inspection import inspect
from edge.inspection.protobuf import Wire
from edge.progress import Silent

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("inspect") / "b"
    request = ConvertRequest(
        str(tiny("phi3.5-mini")), ("cpu", "android"), output=output, proof=False, threads=1
    )
    convert(plan(request), Silent())
    return output


def test_checkpoint_equals_safetensors(tiny: Tiny) -> None:
    directory = tiny("phi4-mini", shards=2)
    found = inspect(directory)
    theirs = {}
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "numpy") as opened:
            theirs |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    assert {t["name"]: t["shape"] for t in found["tensors"]} == theirs
    assert found["parameters"] == sum(math.prod(shape) for shape in theirs.values())
    assert found["convertible"] == {"ok": True}
    assert (
        found["model"]["layers"] == json.loads((directory / "config.json").read_text())["num_hidden_layers"]
    )
    json.dumps(found, allow_nan=False)


def test_a_checkpoint_that_cannot_be_converted_is_still_described(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("phi4")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"logit_softcap": 30.0}))
    found = inspect(tmp_path)
    assert found["parameters"] == inspect(source)["parameters"]
    assert found["convertible"]["ok"] is False
    assert "logit_softcap" in found["convertible"]["cause"]


def test_gguf_equals_the_gguf_package(bundle: Path) -> None:
    [file] = bundle.glob("*.gguf")
    found, theirs = inspect(file), gguf.GGUFReader(file)
    assert {t["name"]: (t["type"], t["shape"], t["bytes"]) for t in found["tensors"]} == {
        t.name: (t.tensor_type.name, t.shape.tolist()[::-1], t.n_bytes) for t in theirs.tensors
    }
    assert set(found["metadata"]) == {k for k in theirs.fields if not k.startswith("GGUF.")}
    tokens = found["metadata"]["tokenizer.ggml.tokens"]
    assert tokens["length"] == len(theirs.fields["tokenizer.ggml.tokens"].data)
    assert len(tokens["first"]) < 20, "a page, not the vocabulary"
    json.dumps(found, allow_nan=False)


def _nodes(graph: onnx.GraphProto) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in graph.node:
        found[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _nodes(attribute.g)
    return found


def test_graph_equals_onnx(bundle: Path) -> None:
    file = bundle / "onnx-int4" / "model.onnx"
    found, theirs = inspect(file), onnx.load(file, load_external_data=False)
    assert found["operators"] == dict(_nodes(theirs.graph))
    assert found["opsets"] == {o.domain or "ai.onnx": o.version for o in theirs.opset_import}
    assert [i["name"] for i in found["inputs"]] == [i.name for i in theirs.graph.input]
    assert [o["name"] for o in found["outputs"]] == [o.name for o in theirs.graph.output]
    kinds = Counter(onnx.TensorProto.DataType.Name(t.data_type).lower() for t in theirs.graph.initializer)
    names = {"float": "float32", "double": "float64"}
    assert {k: v["tensors"] for k, v in found["initializers"].items()} == {
        names.get(k, k): n for k, n in kinds.items()
    }
    assert [(e["file"], e["complete"]) for e in found["external_files"]] == [("model.onnx.data", True)]
    dims = [d.dim_value or d.dim_param for d in theirs.graph.input[0].type.tensor_type.shape.dim]
    assert found["inputs"][0]["shape"] == dims


def test_branches_count_with_their_graph(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        node = onnx.helper.make_node("Identity", ["x"], [name])
        return onnx.helper.make_graph([node], name, [], [onnx.helper.make_tensor_value_info(name, 1, [2])])

    choose = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))
    values = [onnx.helper.make_tensor_value_info(n, t, s) for n, t, s in (("c", 9, []), ("x", 1, [2]))]
    graph = onnx.helper.make_graph([choose], "g", values, [onnx.helper.make_tensor_value_info("y", 1, [2])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "if.onnx")
    found = inspect(tmp_path / "if.onnx")
    assert found["operators"] == {"Identity": 2, "If": 1} == dict(_nodes(graph))
    assert [v["name"] for v in found["inputs"]] == ["c", "x"], "a branch's values are not the graph's"


def test_missing_external_data_is_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((bundle / "onnx-int4" / "model.onnx").read_bytes())
    [entry] = inspect(tmp_path / "model.onnx")["external_files"]
    assert entry["complete"] is False
    assert entry["bytes"] is None


def test_bundle_holds_its_variants(bundle: Path) -> None:
    found = inspect(bundle)
    assert [v["content"]["kind"] for v in found["variants"]] == ["onnx_folder", "gguf"]
    assert found["bytes"] == sum(
        f.stat().st_size for f in bundle.rglob("*") if f.is_file() and f.name != "manifest.json"
    )


def test_a_bundle_that_holds_itself_ends(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "onnx-int4").symlink_to(tmp_path, target_is_directory=True)
    found = inspect(tmp_path)
    assert all("error" in v["content"] for v in found["variants"])


def test_weights_are_not_read(tmp_path: Path) -> None:
    """A graph with 4 GiB of weights inside (a sparse file) costs what its structure costs."""
    size = 4 << 30
    tensor = b"\x08\x20\x10\x02" + b"\x4a" + _varint(size)
    inner = b"\x2a" + _varint(len(tensor) + size) + tensor
    head = b"\x08\x0a\x3a" + _varint(len(inner) + size) + inner
    file = tmp_path / "big.onnx"
    file.write_bytes(head)
    with file.open("r+b") as stream:
        stream.truncate(len(head) + size)
    tracemalloc.start()
    try:
        found = inspect(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["initializers"] == {"uint8": {"tensors": 1, "bytes": 32}}
    assert peak < 1 << 20


def _varint(n: int) -> bytes:
    data = b""
    while n > 127:
        data, n = data + bytes([n & 127 | 128]), n >> 7
    return data + bytes([n])


# The function-scoped directory is only overwritten, so sharing it between examples changes nothing.
@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.dictionaries(st.integers(0, 4000), st.integers(0, 255), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.integers(0, 4000)),
)
def test_a_changed_graph_is_described_or_refused(
    bundle: Path, tmp_path: Path, changes: dict[int, int], cut: int | None
) -> None:
    data = bytearray((bundle / "onnx-int4" / "model.onnx").read_bytes())
    for at, value in changes.items():
        data[at % len(data)] = value
    file = tmp_path / "x.onnx"
    file.write_bytes(data[:cut])
    try:
        json.dumps(inspect(file), allow_nan=False)
    except EdgeError as error:
        refusal = error
    else:
        return
    assert str(file) in refusal.cause


@given(data=st.binary(max_size=200))
def test_wire_never_leaves_its_span(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "wire.bin"
    file.write_bytes(data)
    with Wire(file) as wire:
        try:
            for field in wire.fields():
                assert 0 <= field.start <= field.stop <= len(data)
        except EdgeError:
            pass


def test_a_relative_path_is_as_good_as_an_absolute_one(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert(plan(ConvertRequest(str(tiny("phi4")), ("cpu",), output=Path("b"), proof=False)), Silent())
    [variant] = inspect(Path("b"))["variants"]
    assert variant["content"]["layers"] == 2
    assert inspect(Path("b/onnx-int4"))["kind"] == "onnx_folder"
