"""The DirectML graph decodes rightly on a second GPU API, and ran there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.webgpu import DEVICE_OPS, PROVIDER, Decoding, absent, decode

SOUND = Decoding(
    shape="phi4",
    tokens=16,
    version="1.27.0",
    providers=[PROVIDER, "CPUExecutionProvider"],
    top1=1.0,
    largest_error=3e-6,
    cosine=1.0,
    prefill_error=1.6,
    nodes={PROVIDER: dict.fromkeys(DEVICE_OPS, 1), "CPUExecutionProvider": {"Cast": 3}},
)


@pytest.mark.slow
@pytest.mark.skipif(absent() is not None, reason=f"{absent()} (see benchmarks/webgpu.py)")
@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi4", "phi4-mini"])
def test_decoding_on_webgpu(shape: str) -> None:
    found = decode(shape)
    assert found.faults == []
    assert found.top1 == 1.0


def test_a_sound_run_has_no_faults() -> None:
    assert SOUND.faults == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(SOUND, providers=["CPUExecutionProvider"]), "the session runs on CPUExecutionProvider"),
        (replace(SOUND, largest_error=0.2), "logits are off by 0.2"),
        (replace(SOUND, largest_error=float("nan")), "logits are off by nan"),
        (replace(SOUND, nodes={PROVIDER: {}}), "MatMulNBits did not run on"),
        (replace(SOUND, nodes={**SOUND.nodes, "CPUExecutionProvider": {"GroupQueryAttention": 1}}),
         "GroupQueryAttention ran on another provider"),
    ],
)  # fmt: skip
def test_a_silent_fallback_is_a_fault(wrong: Decoding, said: str) -> None:
    """onnxruntime falls back to the CPU without a word, for a session and for a node."""
    assert any(said in fault for fault in wrong.faults)
