"""LongRoPE changes its factors where the total length passes 4,096: right on each side, and across.

"Right" is what transformers gives in a fresh prefill of that length; all its prefixes on the same side then
follow from causality, so that two prefills of the oracle, to 4,096 and to 4,110, cover every length between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.random_checkpoint import SHAPES as CHECKPOINTS
from converters.checkpoint import Checkpoint
from converters.models import describe
from converters.onnx import context_limit
from converters.onnx.stored import StoredOnnx
from tests.converters.onnx_support import (
    F32,
    TOLERANCE,
    Oracle,
    Session,
    convert,
    generator,
    in_chunks,
    random_ids,
)

SWITCH, FIRST, LAST = 4096, 4090, 4110
# Rotated by the kernel; by the graph (a width the kernel refuses); Phi-4-mini's true head size, width and factors.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "kernel": ("phi3.5-mini", {}),
    "graph": ("phi4-mini", {}),
    "phi-4-mini": (
        "phi4-mini",
        {
            "hidden_size": 256,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": CHECKPOINTS["phi4-mini-full"]["rope_scaling"],
        },
    ),
}


@pytest.fixture(scope="module")
def converted(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """(checkpoint, variant) with a context a little beyond the switch."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in made:
            shape, overrides = SHAPES[name]
            made[name] = (tiny(shape, **overrides), tmp_path_factory.mktemp(name))
            convert(*made[name], context_length=LAST + 2)
        return made[name]

    return make


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_on_each_side_of_the_switch(name: str, converted: Callable[[str], tuple[Path, Path]]) -> None:
    checkpoint, variant = converted(name)
    ids = np.random.default_rng(2).integers(5, 640, LAST).tolist()
    oracle = Oracle(checkpoint)
    short, long = oracle.logits(ids[:SWITCH], last=20), oracle.logits(ids, last=20)
    decoding = in_chunks(Session(variant), ids[:SWITCH], [FIRST, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(decoding[-20:], short, rtol=0, atol=TOLERANCE)
    prefill = Session(variant).run(ids[: SWITCH + 1])
    np.testing.assert_allclose(prefill[-7:], long[:7], rtol=0, atol=TOLERANCE)
    decoding = in_chunks(Session(variant), ids, [SWITCH + 4, 1, 8, 1])
    np.testing.assert_allclose(decoding[-20:], long, rtol=0, atol=TOLERANCE)
    # The two sides differ by far more than the tolerance, or nothing would be shown.
    assert np.abs(short[-1] - long[5]).max() > 0.1


@pytest.mark.parametrize("name", SHAPES)
def test_generation_across_the_switch(name: str, converted: Callable[[str], tuple[Path, Path]]) -> None:
    checkpoint, variant = converted(name)
    run = generator(variant, LAST + 2)
    run.append_tokens(np.random.default_rng(3).integers(5, 640, (1, FIRST)).astype(np.int32))
    seen = []
    for _ in range(FIRST, LAST + 1):
        run.generate_next_token()
        seen.append(run.get_output("logits")[0, -1].copy())
    sequence = [int(i) for i in run.get_sequence(0)][:LAST]
    oracle = Oracle(checkpoint)
    below = oracle.logits(sequence[:SWITCH], last=SWITCH - FIRST + 1)
    above = oracle.logits(sequence, last=LAST - SWITCH)
    np.testing.assert_allclose(np.stack(seen), np.concatenate([below, above]), rtol=0, atol=TOLERANCE)


def test_a_length_beyond_the_tables_is_refused_and_not_looked_up_wrongly(
    converted: Callable[[str], tuple[Path, Path]],
) -> None:
    for name in SHAPES:
        with pytest.raises(Exception, match=r"range|bounds"):
            Session(converted(name)[1]).run([5] * (LAST + 3))


def test_tables_have_the_bundle_s_rows_and_not_the_checkpoint_s(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    for context, rows in ((64, 64), (SWITCH, SWITCH), (5000, SWITCH + 5000)):
        decoder = convert(tiny("phi4-mini"), tmp_path / str(context), context_length=context)
        with StoredOnnx(tmp_path / str(context), decoder, F32) as reader:
            cos, sin = reader.rotary_tables()
        assert cos.shape == sin.shape == (rows, decoder.rope.dim // 2)


def test_the_context_is_capped_where_genai_would_not_start_anew(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """onnxruntime-genai knows only one switch, 4,096; any other would leave wrong keys in the cache."""
    checkpoint = tiny("phi4-mini", original_max_position_embeddings=2048)
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
    limit, why = context_limit(decoder)
    assert limit == 2048
    assert why is not None
    assert "2048" in why
    convert(checkpoint, tmp_path, context_length=limit)
    ids = random_ids(decoder, 30)
    np.testing.assert_allclose(
        Session(tmp_path).run(ids), Oracle(checkpoint).logits(ids), rtol=0, atol=TOLERANCE
    )
    for name in ("phi3.5-mini", "phi4"):
        with Checkpoint.open(tiny(name)) as opened:
            decoder = describe(opened)
        assert context_limit(decoder) == (decoder.context_length, None)
