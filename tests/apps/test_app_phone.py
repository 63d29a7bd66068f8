"""What a signed APK holds, run on three CPU models of qemu: its libraries, chosen by its own Java, and its model."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge import cli, runtimes
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
MODELS = {"smollm2-135m-instruct": 8, "phi3-mini-4k": 6, "phi3.5-moe": 6}
"""The embedded default and two random ones; how many tokens each says."""
QUESTION = "What is the capital of France?"


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


def logits_here(app: Installed, tokens: list[int]) -> np.ndarray:
    """What llama.cpp on this computer's own CPU gives where the phone chose each of `tokens`."""
    runtime = runtimes.open_runtime(app.gguf, context_length=256)
    try:
        rows = [runtime.append(runtime.encode(app.prompt(QUESTION), special=True))]
        rows += [runtime.append([token]) for token in tokens[:-1]]
    finally:
        runtime.close()
    return np.stack(rows)


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
    expected = logits_here(app, said.tokens)
    d = (said.logits - expected) / expected.std()
    print(model, cpu, np.abs(d).max(1), d.std(), said.text, said.tokens, expected.argmax(1))
