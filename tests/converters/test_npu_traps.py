"""What Qualcomm's provider takes without a word and then computes otherwise than it is written, or not on the NPU.

Each test says what onnxruntime-qnn 2.7.0 does today, on its emulator in a process of its own, and that nothing this
project writes runs into it. Where a later version is cured the first half fails: then the guard can go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx import npu
from edge.npu import plugin
from edge.npu.compiler import compile_graph
from edge.npu.socs import load_socs
from quant.recipe import Recipe
from tests.converters import npu_probe_graphs
from tests.converters.npu_support import SHAPES_ON_NPU, write_npu
from tests.edge.npu_emulator import needs_emulator

Tiny = Callable[..., Path]
pytestmark = needs_emulator
NPU, CPU = "QNNExecutionProvider", "CPUExecutionProvider"
# Rounding to 16 bits or to float16 alone leaves 0.999999 of these products; what is wrong has 0.98 at most.
RIGHT, WRONG = 0.9999, 0.99


def probe(case: str, *changes: str) -> dict[str, Any]:
    """See tests/converters/npu_probe.py."""
    command = [sys.executable, "-m", "tests.converters.npu_probe", case, *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def graphs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.GraphProto]:
    """Both NPU stages of every tiny shape in every form that this project writes."""
    found = {}
    for shape in SHAPES_ON_NPU:
        for precision in ("int4", "int8"):
            for activations in ("f16", "u16"):
                name = f"{shape}-{precision}-{activations}"
                folder = tmp_path_factory.mktemp(name)
                recipe = replace(Recipe.preset(precision), activations=activations)
                write_npu(tiny(shape), folder, recipe=recipe)
                for stage in ("context", "iterator"):
                    graph = onnx.load(folder / f"{stage}.onnx", load_external_data=False).graph
                    found[f"{name}-{stage}"] = graph
    return found


def nodes(
    graphs: dict[str, onnx.GraphProto], operator: str
) -> Iterator[tuple[str, onnx.NodeProto, dict[str, int]]]:
    """(graph and node, node, its whole-number attributes) of every such node; there is one."""
    count = 0
    for name, graph in graphs.items():
        for node in graph.node:
            if node.op_type == operator:
                count += 1
                yield f"{name} {node.name}", node, {a.name: a.i for a in node.attribute}
    assert count


@pytest.mark.parametrize(
    ("kind", "right"), [("int4", True), ("int8", True), ("uint4", False), ("uint8", False)]
)
def test_unsigned_blocks_are_taken_and_computed_wrongly(kind: str, right: bool) -> None:
    answer = probe(f"blocked:{kind}")
    assert answer["devices"]["product"] == NPU
    assert (answer["cosine"] > RIGHT) is right
    assert right or answer["cosine"] < WRONG


def test_no_weight_of_ours_is_unsigned(graphs: dict[str, onnx.GraphProto]) -> None:
    """The only unsigned codes behind a DequantizeLinear are 16-bit activations and the multiples of a row's scale."""
    for name, node, attributes in nodes(graphs, "DequantizeLinear"):
        if "block_size" in attributes:
            graph = graphs[name.split()[0]]
            (zeros,) = (tensor for tensor in graph.initializer if tensor.name == node.input[2])
            assert zeros.data_type == TensorProto.INT4, name


def test_blocks_with_float_scales_turn_activations_back_into_float16() -> None:
    """Right, but no whole-number arithmetic: why the u16 form's weights have one float scale a row."""
    assert probe("blocked:int4")["qnn"]["MatMul"] == "float16"
    assert probe("multiples:16")["qnn"]["MatMul"] == "u16"


def test_block_scales_of_more_than_16_row_scales_are_taken_and_computed_wrongly() -> None:
    right, wrong = probe("multiples:16"), probe("multiples:17")
    assert right["cosine"] > RIGHT
    assert wrong["devices"]["product"] == NPU
    assert wrong["cosine"] < WRONG


def test_our_multiples_are_1_to_16(tiny: Tiny, tmp_path: Path) -> None:
    recipe = replace(Recipe.preset("int4"), activations="u16")
    decoder = write_npu(tiny("phi4-mini"), tmp_path, recipe=recipe)
    seen = set()
    with npu.open_stored(tmp_path, decoder, recipe) as stored:
        for layer in decoder.layers:
            for weight in layer.weights():
                if weight.is_matrix:
                    scales = stored.stored_rows(weight, 0, weight.rows).scales.astype(float)
                    seen |= {*(scales / scales.max(axis=1, keepdims=True) * 16).round(6).ravel()}
    assert seen <= set(range(1, 17))
    assert 16 in seen


@pytest.mark.parametrize(("turned", "right"), [("32", True), ("24", False)])
def test_attention_that_turns_part_of_a_head_is_taken_and_computed_wrongly(turned: str, right: bool) -> None:
    answer = probe(f"attention:{turned}")
    assert answer["devices"]["attention"] == NPU
    assert (answer["cosine"] > RIGHT) is right
    assert right or answer["cosine"] < WRONG


def test_our_attention_turns_whole_heads_or_none(tiny: Tiny, graphs: dict[str, onnx.GraphProto]) -> None:
    for name, _, attributes in nodes(graphs, "GroupQueryAttention"):
        shape = next(shape for shape in SHAPES_ON_NPU if name.startswith(f"{shape}-int"))
        with Checkpoint.open(tiny(shape)) as checkpoint:
            decoder = describe(checkpoint)
        assert attributes["do_rotary"] == (decoder.rope.dim == decoder.attention.head_dim), name


def test_attention_without_affinity_runs_on_the_cpu() -> None:
    assert probe("attention:32")["devices"] == {"attention": NPU}
    assert probe("attention:32", "op_affinity=")["devices"] == {"attention": CPU}


def test_without_a_soc_the_weights_run_on_the_cpu() -> None:
    """With float16 asked for it is an error; without, nothing is said."""
    nothing = ("soc_model=", "htp_arch=")
    assert "soc_model is not specified" in probe("nbits", *nothing)["error"]
    assert probe("nbits", *nothing, "enable_htp_fp16_precision=")["devices"] == {"y": CPU}


def test_unknown_options_are_ignored() -> None:
    assert probe("nbits", "no_such_option=1")["devices"] == {"y": NPU}


def test_our_options_are_known_to_the_provider_and_name_soc_and_affinity() -> None:
    import onnxruntime_qnn

    library = Path(onnxruntime_qnn.get_library_path()).read_bytes()
    for soc in load_socs().values():
        with plugin.graph_options(soc) as options:
            assert {"soc_model", "htp_arch", "op_affinity", "enable_htp_fp16_precision"} <= set(options)
            for option in options:
                assert option.encode() in library, option
    assert b"no_such_option" not in library


def test_a_failed_compilation_leaves_a_binary(tmp_path: Path) -> None:
    asked = (
        "session.disable_cpu_ep_fallback=1",
        "ep.context_enable=1",
        "ep.context_file_path=WORK/left.onnx",
    )
    answer = probe("left_over", *asked)
    assert "fallback" in answer["error"]
    assert {"left.onnx", "left_qnn.bin"} <= set(answer["files"])


def test_our_failed_compilation_leaves_none(tmp_path: Path) -> None:
    model, _, _ = npu_probe_graphs.left_over("")
    onnx.save(model, tmp_path / "graph.onnx")
    (tmp_path / "made").mkdir()
    done = compile_graph(tmp_path / "graph.onnx", load_socs()["SM8650"], tmp_path / "made" / "graph.onnx")
    assert [node.node for node in done.elsewhere()] == ["erf"]
    assert not list((tmp_path / "made").iterdir())
