"""The very libraries of the APK on three CPU models, against llama.cpp on this computer's own CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge import runtimes
from edge.packaging import native, parts
from edge.progress import Silent
from quant.recipe import Recipe
from tests.apps import phone
from tests.converters.gguf_support import write_gguf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(phone.QEMU is None, reason="apt-get install qemu-user-static"),
]

LIBRARIES = {
    "cortex-a53": "librnllama_v8.so",
    "cortex-a76": "librnllama_v8_2_dotprod.so",
    "max": "librnllama_v8_2_dotprod_i8mm.so",
}
"""What CpuVariant chooses on each."""
TOLERANCE = 0.05
"""Largest difference of a logit, as a share of the standard deviation of all. Activations are rounded to 8 bits with
scales in float16, and sums are in another order: one rounding that falls the other way moves a product by 1/256."""
PROMPT = "Hello there, what is the capital of France?"
NEW = 6
ILLEGAL_INSTRUCTION = -4


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> phone.Phone:
    return phone.build(tmp_path_factory.mktemp("phone"))


@pytest.fixture(scope="module")
def edge_llama(llama_rn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    zig = parts.fetch("zig", Silent()) / "ziglang" / "zig"
    return native.build(tmp_path_factory.mktemp("native"), llama_rn, zig)


@pytest.fixture(scope="module")
def libraries(llama_rn: Path) -> Path:
    return llama_rn / "android" / "src" / "main" / "jniLibs" / "arm64-v8a"


@pytest.mark.parametrize("cpu", LIBRARIES)
@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi3.5-moe"])
def test_logits_are_those_of_this_computer(
    shape: str, cpu: str, device: phone.Phone, edge_llama: Path, libraries: Path, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    gguf = tmp_path / "tiny.gguf"
    write_gguf(tiny(shape), gguf, Recipe.preset("int4", experts="moe" in shape), context=1024)
    logits = tmp_path / "logits.bin"
    done = device.run(cpu, edge_llama, libraries / LIBRARIES[cpu], gguf, PROMPT, NEW, logits)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == NEW
    runtime = runtimes.open_runtime(gguf, context_length=256)
    try:
        expected = runtime.append(runtime.encode(PROMPT, special=True))
    finally:
        runtime.close()
    difference = np.abs(phone.read_logits(logits) - expected).max() / expected.std()
    print(f"{shape} on {cpu}: largest difference {difference:.4f} of the standard deviation")
    assert difference < TOLERANCE


def test_wrong_library_dies(device: phone.Phone, edge_llama: Path, libraries: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    wrong = libraries / LIBRARIES["cortex-a76"]
    done = device.run("cortex-a53", edge_llama, wrong, tiny_gguf, PROMPT, NEW, tmp_path / "logits.bin")
    assert done.returncode == ILLEGAL_INSTRUCTION
