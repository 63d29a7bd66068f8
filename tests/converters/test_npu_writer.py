"""The NPU pipeline's files: the same codes as every target, static shapes, right positions on the CPU provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.models import describe
from converters.onnx import npu
from converters.onnx import open_stored as open_cpu
from converters.onnx.npu.limits import WINDOW as REAL_WINDOW
from quant.recipe import Recipe
from tests.converters.npu_support import INT4, SHAPES_ON_NPU, CpuPipeline, cosine, expected, write_npu
from tests.converters.onnx_support import convert, random_ids

Tiny = Callable[..., Path]
# float16 keeps 11 bits: 5e-4 a value, less over a sum. Measured: 0.99998 and better; a wrong mask, position or table
# gives 0.9 or less.
COSINE = 0.9999


@pytest.mark.parametrize("shape", SHAPES_ON_NPU)
def test_prompts_and_tokens_say_what_the_reference_says(shape: str, tiny: Tiny, tmp_path: Path) -> None:
    """A prompt of several windows, the last one padded, and then tokens that overwrite the padding."""
    decoder = write_npu(tiny(shape), tmp_path)
    ids = random_ids(decoder, 30)
    reference = expected(tiny(shape), ids)
    pipeline = CpuPipeline(tmp_path)
    prompt = pipeline.prompt(ids[:21])
    tokens = [pipeline.token(ids[i], i) for i in range(21, 30)]
    for position, row in enumerate([*prompt, *tokens]):
        assert cosine(row, reference[position]) > COSINE, position


def test_the_codes_are_those_of_the_cpu_variant(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny("phi4-mini")
    decoder = write_npu(checkpoint, tmp_path / "npu")
    convert(checkpoint, tmp_path / "cpu", INT4)
    with (
        npu.open_stored(tmp_path / "npu", decoder, INT4) as ours,
        open_cpu(tmp_path / "cpu", decoder, INT4) as cpu,
    ):
        for weight in decoder.weights():
            a, b = (stored.stored_rows(weight, 0, weight.rows) for stored in (ours, cpu))
            if not weight.is_matrix:
                np.testing.assert_array_equal(a, b)
                continue
            np.testing.assert_array_equal(a.codes, b.codes, err_msg=weight.name)
            np.testing.assert_array_equal(
                a.scales.view(np.uint16), b.scales.view(np.uint16), err_msg=weight.name
            )


def test_what_the_npu_compiles_has_no_free_dimension_and_no_attention_without_affinity(
    tiny: Tiny, tmp_path: Path
) -> None:
    write_npu(tiny("phi4-mini"), tmp_path)
    for stage, tokens in (("context", 8), ("iterator", 1)):
        graph = onnx.load(tmp_path / f"{stage}.onnx", load_external_data=False).graph
        for value in (*graph.input, *graph.output):
            dims = value.type.tensor_type.shape.dim
            assert all(d.HasField("dim_value") and d.dim_value > 0 for d in dims), value.name
        assert graph.input[0].type.tensor_type.shape.dim[1].dim_value == tokens
        # phi-4-mini turns three quarters of a head: the NPU's attention accepts that and computes something else.
        assert {a.i for n in graph.node for a in n.attribute if a.name == "do_rotary"} == {0}
        assert sum(n.op_type == "RotaryEmbedding" for n in graph.node) == 4


def test_planned_sizes_are_real(tiny: Tiny, tmp_path: Path) -> None:
    decoder = write_npu(tiny("phi4"), tmp_path, context=128, window=REAL_WINDOW)
    planned = npu.planned_files(decoder, INT4, 128)
    assert planned == {name: (tmp_path / name).stat().st_size for name in planned}
    data = sum(size for name, size in planned.items() if name.endswith(".data"))
    assert data == npu.planned_bytes(decoder, INT4, context_length=128)


@pytest.mark.parametrize(
    ("shape", "limit", "why"),
    [
        ("phi4", 16384 - 64, "padding"),
        ("phi3-mini-4k", 1984 - 64, "sliding window"),
        ("phi4-mini", 4096 - 64, "LongRoPE"),
    ],
)
def test_the_context_ends_where_a_static_graph_would_be_wrong(
    shape: str, limit: int, why: str, tiny: Tiny
) -> None:
    with Checkpoint.open(tiny(shape)) as checkpoint:
        found = npu.context_limit(describe(checkpoint))
    assert found[0] == limit
    assert why in (found[1] or "")


def test_a_matrix_that_is_not_in_symmetric_blocks_is_refused_by_name(tiny: Tiny) -> None:
    with Checkpoint.open(tiny("odd-heads")) as checkpoint:
        decoder = describe(checkpoint)
    with pytest.raises(UnsupportedError, match=r"layers\.0\.attention\.o is stored as f16"):
        npu.check(decoder, INT4)
    with pytest.raises(UnsupportedError, match="embedding is stored as bf16"):
        npu.check(decoder, Recipe.preset("bf16"))


def _faults(directory: Path, decoder: Decoder, context: int) -> list[str]:
    with npu.open_stored(directory, decoder, INT4) as stored:
        return [fact.key for fact in stored.facts(context) if fact.found != pytest.approx(fact.expected)]


def test_altered_constants_are_found(tiny: Tiny, tmp_path: Path) -> None:
    decoder = write_npu(tiny("phi4"), tmp_path)
    assert _faults(tmp_path, decoder, 40) == []
    model = onnx.load(tmp_path / "iterator.onnx", load_external_data=False)
    node = next(n for n in model.graph.node if n.op_type == "GroupQueryAttention")
    next(a for a in node.attribute if a.name == "scale").f *= 2
    onnx.save(model, tmp_path / "iterator.onnx")
    assert _faults(tmp_path, decoder, 40) == [f"iterator: {node.name} scale"]


def test_an_altered_config_is_found(tiny: Tiny, tmp_path: Path) -> None:
    decoder = write_npu(tiny("phi4"), tmp_path)
    file = tmp_path / "genai_config.json"
    config = json.loads(file.read_text())
    config["model"]["pad_token_id"] = 0
    config["search"]["max_length"] = 40
    file.write_text(json.dumps(config))
    keys = {key.split(": ")[1] for key in _faults(tmp_path, decoder, 40)}
    assert keys == {"model.pad_token_id", "search.max_length"}
