"""What a signed APK holds, run on three CPU models of qemu: its libraries, chosen by its own Java, and its model."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from converters.gguf.reader import Gguf
from edge import cli, runtimes
from edge.engine_settings import EngineSettings
from edge.packaging import native
from tests.apps import phone, signed_apk
from tests.apps.host_build import Host
from tests.apps.signed_apk import Installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(phone.QEMU is None, reason="apt-get install qemu-user-static"),
]

CPUS = {
    "cortex-a53": "librnllama_v8.so",
    "cortex-a76": "librnllama_v8_2_dotprod.so",
    "max": "librnllama_v8_2_dotprod_i8mm.so",
}
"""CPU models of qemu, and the library that CpuVariant must choose from the /proc/cpuinfo of a phone of that class."""
CPUINFO = Path(__file__).parent / "qemu" / "cpuinfo"
BITS = {"atomics": (0, 8), "fphp": (0, 9), "asimdhp": (0, 10), "asimddp": (0, 20), "i8mm": (1, 13)}
"""Where AT_HWCAP (0) and AT_HWCAP2 (1) say what a CPU has (Linux, arch/arm64/include/uapi/asm/hwcap.h)."""
MODELS = {"smollm2-135m-instruct": 6, "phi3-mini-4k": 6, "phi3.5-moe": 6}
"""The embedded default and two random ones; how many tokens each says."""
QUESTION = "What is the capital of France?"
ANSWER = b"The capital of France is Paris"
TOLERANCE = 2.0
"""Root mean square difference of the logits, as a multiple of what llama.cpp's other kernels on this computer (`repack`
off) differ by. Both add the same products in another order, and activations are rounded to 8 bits before each matrix:
what rounds the other way in one layer goes through all that follow. Of the default's logits, that is 0.054 of the
standard deviation here, and 0.061 to 0.062 on the three CPUs."""
FLOOR = 0.03
"""For models of two layers, where either may see no rounding fall the other way: of the standard deviation. One that
does moves the logits by about 0.013."""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> phone.Phone:
    return phone.build(tmp_path_factory.mktemp("phone"))


@pytest.fixture(scope="module")
def install(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Installed]:
    @cache
    def make(model: str) -> Installed:
        folder = tmp_path_factory.mktemp(model)
        checkpoint = model if model.startswith("smollm2") else str(tiny(model))
        command = ["convert", checkpoint, "--target", "android", "--context", "256", "--no-proof"]
        assert cli.main([*command, "-o", str(folder / "bundle")]) == 0
        return signed_apk.install(folder / "bundle", folder)

    return make


@pytest.fixture(scope="module")
def chosen(host: Host) -> dict[str, str]:
    """What the app's own Java chooses for each CPU."""
    command = host.java("dev.edge.core.VariantProbe", *(CPUINFO / f"{cpu}.txt" for cpu in CPUS))
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {cpu: f"lib{line.split()[0]}.so" for cpu, line in zip(CPUS, lines, strict=True)}


def answer(device: phone.Phone, app: Installed, cpu: str, library: str, count: int) -> phone.Answer:
    own = app.libraries / native.NAME
    return device.answer(cpu, own, app.libraries / library, app.gguf, app.prompt(QUESTION), count)


def logits_here(app: Installed, tokens: list[int], *, repack: bool) -> NDArray[np.float32]:
    """What llama.cpp on this computer's own CPU gives where the phone chose each of `tokens`."""
    settings = EngineSettings(repack=repack)
    runtime = runtimes.open_runtime(app.gguf, context_length=256, settings=settings)
    try:
        rows = [runtime.append(runtime.encode(app.prompt(QUESTION), special=True))]
        rows += [runtime.append([token]) for token in tokens[:-1]]
    finally:
        runtime.close()
    return np.stack(rows)


def rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("cpu", CPUS)
def test_cpuinfo_is_what_the_emulated_cpu_has(cpu: str, device: phone.Phone) -> None:
    text = (CPUINFO / f"{cpu}.txt").read_text()
    told = set(next(line for line in text.splitlines() if line.startswith("Features")).split(":")[1].split())
    words = device.capabilities(cpu)
    has = {name for name, (word, bit) in BITS.items() if words[word] >> bit & 1}
    assert told & BITS.keys() == has


def test_java_chooses_the_library(chosen: dict[str, str]) -> None:
    assert chosen == CPUS


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("model", MODELS)
def test_logits_are_those_of_this_computer(
    model: str, cpu: str, device: phone.Phone, install: Callable[[str], Installed], chosen: dict[str, str]
) -> None:
    app = install(model)
    said = answer(device, app, cpu, chosen[cpu], MODELS[model])
    expected = logits_here(app, said.tokens, repack=True)
    deviation = float(expected.std())
    allowed = max(TOLERANCE * rms(logits_here(app, said.tokens, repack=False) - expected), FLOOR * deviation)
    found = rms(said.logits - expected)
    print(f"{model} on {cpu}: {found / deviation:.4f} of {allowed / deviation:.4f} allowed, {said.text!r}")
    assert len(said.tokens) == MODELS[model]
    assert found < allowed
    # Each token is the likeliest here as well, or as good as that: the peak of 50000 differences is 5 times their rms.
    behind = expected.max(1) - expected[np.arange(len(said.tokens)), said.tokens]
    assert behind.max() < 5 * allowed
    if model.startswith("smollm2"):
        assert said.text.startswith(ANSWER)


def test_the_default_is_q4_0(install: Callable[[str], Installed]) -> None:
    """All matrices but those few that the recipe keeps in Q8_0."""
    with Gguf.open(install("smollm2-135m-instruct").gguf) as file:
        kinds = Counter(tensor.type for tensor in file.tensors.values() if len(tensor.shape) == 2)
    assert kinds.keys() <= {GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0}
    assert kinds[GGMLQuantizationType.Q4_0] > 0.9 * kinds.total()


@pytest.mark.parametrize(("cpu", "better"), [("cortex-a53", "cortex-a76"), ("cortex-a76", "max")])
def test_a_better_cpus_library_dies(
    cpu: str, better: str, device: phone.Phone, install: Callable[[str], Installed], chosen: dict[str, str]
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as died:
        answer(device, install("phi3-mini-4k"), cpu, chosen[better], 1)
    assert died.value.returncode == -signal.SIGILL
