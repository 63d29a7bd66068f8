"""The figures of `edge report` against computations of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.reference import hidden_states
from edge import bundle as bundles
from edge.benchmark import Contender, bench
from edge.benchmark import Request as BenchRequest
from edge.convert import ConvertRequest, convert, plan
from edge.evaluation.statistics import Estimate
from edge.progress import Silent
from edge.proof import proof_tokens
from edge.report import Request, gather
from edge.reporting import speed
from edge.reporting.findings import Findings
from edge.reporting.page import render
from edge.reporting.predictions import KL_STEPS, cases, spans
from edge.reporting.sizes import artifact_sizes, place
from edge.reporting.words import estimate
from edge.runtimes import EngineSettings
from quant.recipe import Recipe
from tests.edge.report_page import Page


@pytest.fixture(scope="module")
def checkpoint(tiny: Callable[..., Path]) -> Path:
    return tiny("phi4")


def test_parts_add_up_to_the_files(reported: Path) -> None:
    for variant in bundles.load(reported).variants:
        sizes = artifact_sizes(variant)
        files = [variant.path] if variant.path.is_file() else list(variant.path.iterdir())
        assert sizes.total == sum(f.stat().st_size for f in files)
        assert min(sizes.parts.values()) > 0


def test_parts_are_as_large_as_their_format_says(reported: Path, checkpoint: Path) -> None:
    gguf = next(v for v in bundles.load(reported).variants if v.format == "gguf")
    sizes = artifact_sizes(gguf)
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
    # ggml: Q8_0 takes 34 bytes for 32 weights, Q4_0 takes 18.
    assert sizes.parts["embedding"] == decoder.vocab_size * decoder.hidden_size * 34 // 32
    first = decoder.layers[0]
    mlp = sum(w.shape[0] * w.shape[1] for w in first.mlp.weights())
    assert [layer["MLP"] for layer in sizes.layers] == [mlp * 18 // 32] * len(decoder.layers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.12.attn_qkv.weight", (12, "attention")),
        ("blk.0.attn_norm.weight", (0, "norms")),
        ("blk.3.ffn_down.weight", (3, "MLP")),
        ("blk.3.ffn_norm.weight", (3, "norms")),
        ("token_embd.weight", (None, "embedding")),
        ("output_norm.weight", (None, "norms")),
        ("output.weight", (None, "lm_head")),
        ("rope_factors_long.weight", (None, "other")),
        ("layers.7.attention.qkv.codes", (7, "attention")),
        ("layers.7.post_attention_norm", (7, "norms")),
        ("layers.7.mlp.up.scales", (7, "MLP")),
        ("embedding.codes", (None, "embedding")),
        ("lm_head.scales", (None, "lm_head")),
        ("final_norm", (None, "norms")),
        ("rotary.cos", (None, "other")),
    ],
)
def test_tensors_are_counted_where_they_belong(name: str, expected: tuple[int | None, str]) -> None:
    assert place(name) == expected


def test_errors_are_those_of_the_recipe(report_findings: Findings, checkpoint: Path) -> None:
    """Against a computation of its own: the recipe's round trip of the whole weights, no artifact read."""
    recipe = Recipe.preset("int4")
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        layer = decoder.layers[1]
        raw = opened.weight_rows(layer.dense.down, 0, layer.dense.down.rows)
        ids = proof_tokens(checkpoint, decoder, 256)
        windows = np.asarray([ids], np.int64)
        plain = hidden_states(opened, decoder, windows)
        stored = hidden_states(
            opened,
            decoder,
            windows,
            transform=lambda w, start, r: recipe.decode(recipe.encode(w, r, start=start)),
        )
    lost = recipe.decode(recipe.encode(layer.dense.down, raw)) - raw.astype(np.float32)
    expected = np.linalg.norm(lost) / np.linalg.norm(raw.astype(np.float32))
    final = np.linalg.norm(stored - plain, axis=-1) / np.linalg.norm(plain, axis=-1)
    for each in report_findings.variants:
        assert each.errors is not None
        assert each.errors.layers[1, 6] == pytest.approx(expected, rel=1e-5)
        # The final norm changes each length but not much the ratio of two: the same size, not the same number.
        assert each.errors.hidden[-1] == pytest.approx(final.mean(), rel=0.3)


def test_finer_storage_has_smaller_errors(
    checkpoint: Path, report_findings: Findings, tmp_path: Path
) -> None:
    made = tmp_path / "f32"
    request = ConvertRequest(
        str(checkpoint), ("cpu",), precision="f32", context=64, output=made, proof=False, threads=1
    )
    convert(plan(request), Silent())
    found = gather(Request(made, str(checkpoint), windows=1, threads=1), Silent()).variants[0]
    assert found.errors is not None
    assert not found.errors.layers.any()
    assert not found.errors.hidden.any()
    coarse = report_findings.variants[0].errors
    assert coarse is not None
    assert (coarse.layers > 0.02).all()  # int4: a step of absmax / 8 leaves some percent of the norm
    # The engine and the reference both compute in float32: only rounding is left.
    assert found.evaluation is not None
    assert found.evaluation.kl_mean is not None
    assert found.evaluation.kl_mean.value < 1e-6


def test_a_mixed_recipe_is_shown_as_a_map(checkpoint: Path, tmp_path: Path) -> None:
    rules = [("layers.1.mlp.down", "int8", "rtn"), ("layers.0.*", "f16", "cast"), ("*", "int4", "rtn")]
    keys = ("pattern", "storage", "method")
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"name": "mixed", "rules": [dict(zip(keys, r, strict=True)) for r in rules]}))
    made = tmp_path / "mixed"
    request = ConvertRequest(
        str(checkpoint), ("android",), recipe=file, context=64, output=made, proof=False, threads=1
    )
    convert(plan(request), Silent())
    found = gather(Request(made, str(checkpoint), windows=1, threads=1), Silent())
    bits = found.variants[0].bits
    assert bits is not None
    # ggml: 18 and 34 bytes for a block of 32.
    assert bits.tolist() == [[16.0] * 7, [4.5] * 6 + [8.5]]
    text = Page(render(found)).text
    assert "Bits of each weight: gguf-int4" in text
    assert "Bytes by layer: gguf-int4" in text  # the layers differ


def test_the_strip_holds_the_predicted_text_and_shades_by_kl(report_findings: Findings) -> None:
    evaluation = report_findings.variants[0].evaluation
    assert evaluation is not None
    positions = evaluation.positions
    assert positions.kl is not None
    shown = spans(evaluation)
    window = int(positions.kl.mean(-1).argmax())
    expected = positions.text(positions.windows.targets[window].tolist())
    assert "".join(s.text for s in shown) == expected
    assert max(s.kl for s in shown) == pytest.approx(float(positions.kl[window].max()))
    for span in shown:
        assert span.step == sum(span.kl >= bound for bound in KL_STEPS)


def test_the_worst_predictions_come_first_with_both_probabilities(report_findings: Findings) -> None:
    evaluation = report_findings.variants[0].evaluation
    assert evaluation is not None
    assert evaluation.positions.kl is not None
    worst = cases(evaluation)
    assert worst[0].kl == pytest.approx(float(evaluation.positions.kl.max()), rel=1e-6)
    assert [c.kl for c in worst] == sorted((c.kl for c in worst), reverse=True)
    for case in worst:
        assert [r.original for r in case.rivals] == sorted((r.original for r in case.rivals), reverse=True)
        assert all(0 <= p <= 1 for r in case.rivals for p in (r.original, r.artifact))


def test_what_edge_bench_writes_is_read(reported: Path) -> None:
    variant = next(v for v in bundles.load(reported).variants if v.format == "gguf")
    request = BenchRequest(
        (Contender(variant.path, variant.name, 64, EngineSettings()),),
        prompts=(8,),
        depths=(0,),
        runs=1,
        threads=1,
        decoded_tokens=2,
    )
    (found,) = speed.parse(json.loads(json.dumps(bench(request, Silent()).to_data())))
    assert found.name == "gguf-int4"
    assert found.first_token[8].median > 0
    assert found.decode[0].low <= found.decode[0].median <= found.decode[0].high


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (Estimate(0.35312, 0.0123), "0.353 ± 0.012"),
        (Estimate(12.5, 3.2), "12.5 ± 3.2"),
        (Estimate(1232.4, 82.1), "1232 ± 82"),
        (Estimate(0.0, 0.0), "0"),
    ],
)
def test_estimates_are_written_to_the_second_digit_of_their_error(found: Estimate, written: str) -> None:
    assert estimate(found) == written
