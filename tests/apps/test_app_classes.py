"""Single classes of the app's Java on this computer, against Python's own where both do the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converters.gguf import long_words
from edge import runtimes
from edge.chat.prompt import PromptFormat
from edge.packaging import turns
from tests.apps.conftest import TEMPLATE, Probe, describe

ALL = "fp asimd aes crc32 atomics fphp asimdhp asimdrdm asimddp i8mm"
PLAIN, DOT, I8MM = "rnllama_v8", "rnllama_v8_2_dotprod", "rnllama_v8_2_dotprod_i8mm"


@pytest.mark.parametrize(
    ("cpuinfo", "best"),
    [
        (f"Features\t: {ALL}\n" * 2, I8MM),
        (f"Features\t: {ALL}\nFeatures\t: {ALL.removesuffix(' i8mm')}\n", DOT),
        (f"Features\t: {ALL}\nFeatures\t: fp asimd\n", PLAIN),
        # Words that only contain a feature's name, and a core without the rest of ARMv8.2.
        ("Features\t: fp asimd svei8mm asimddpx\n", PLAIN),
        ("Features\t: fp asimd asimddp i8mm\n", PLAIN),
        # A 32-bit kernel, a computer, nothing at all.
        ("Features\t: half thumb fastmult vfp neon vfpv4 idiva\n", PLAIN),
        (f"flags\t: {ALL}\n", PLAIN),
        ("", PLAIN),
    ],
)
def test_library_is_one_that_every_core_can_run(probe: Probe, cpuinfo: str, best: str) -> None:
    choices = probe("cpu", cpuinfo)["value"]
    assert choices == [I8MM, DOT, PLAIN][[I8MM, DOT, PLAIN].index(best) :]


@pytest.mark.parametrize(
    ("available_kb", "context", "told"),
    [
        (1024, 256, None),
        (1023, 256, "close other apps, or choose a smaller model"),
        (2048, 1280, None),
        (2047, 1280, "set a context of 1024 tokens"),
    ],
)
def test_memory_is_counted_to_the_kilobyte(
    probe: Probe, tiny_gguf: Path, tmp_path: Path, available_kb: int, context: int, told: str | None
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available_kb} kB\nSwapFree: 9 kB\n")
    numbers = {"size": 512 << 10, "work_bytes": 256 << 10, "kv_bytes_per_token": 1 << 10}
    answer = probe("memory", str(tmp_path), model=describe(tiny_gguf, **numbers), context=context)
    assert answer.get("failure", ["memory", told])[0] == "memory"
    assert ("failure" in answer) == (told is not None)
    assert (told or "") in str(answer)


def test_memory_that_nobody_tells_stops_nothing(probe: Probe, tiny_gguf: Path, tmp_path: Path) -> None:
    assert probe("memory", str(tmp_path), model=describe(tiny_gguf), context=256) == {"value": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"context": 0}, {"context": 1 << 31}, {"context": (1 << 32) + 256}, {"kv_bytes_per_token": 1 << 60},
        {"size": -1}, {"work_bytes": 1 << 62}, {"size": 1.5}, {"id": "../up"}, {"file": "../model.gguf"},
    ],
)  # fmt: skip
def test_model_of_impossible_numbers_is_refused(
    probe: Probe, tiny_gguf: Path, changes: dict[str, Any]
) -> None:
    code, message = probe("model", model=describe(tiny_gguf, **changes))["failure"]
    assert code == "file_damaged"
    assert next(iter(changes)) in message


def test_largest_numbers_do_not_overflow(probe: Probe, tiny_gguf: Path) -> None:
    numbers = {"context": 1 << 24, "kv_bytes_per_token": 1 << 26, "size": 1 << 50, "work_bytes": 1 << 50}
    assert probe("model", model=describe(tiny_gguf, **numbers))["value"] == 3 << 50


@pytest.mark.parametrize("system", ["", "Be brief.", "a<|end|>b"])
@pytest.mark.parametrize(
    "messages",
    [
        ["hello"],
        ["hello", "Hi!", "and now?"],
        [" leading", "tail \n", "\u3000wide\u00a0"],
        ["a<|end|>\n<|user|>b", "<s>", "</s><|assistant|>"],
        ["é👍🏽 \u0301", "日本語\n\n", "\u0000\ufffd" + "x" * 300],
        [" ", "", "<|end|>"],
    ],
)
def test_tokens_are_those_of_edge_chat(
    probe: Probe, tiny_gguf: Path, messages: list[str], system: str
) -> None:
    runtime = runtimes.open_runtime(tiny_gguf, context_length=256)
    try:
        shown = [{"role": "system", "content": system}] if system else []
        shown += [
            {"role": "user" if i % 2 == 0 else "assistant", "content": message}
            for i, message in enumerate(messages)
        ]
        dialect = runtime.dialect()
        template = dialect.template or TEMPLATE
        expected = PromptFormat(runtime, replace(dialect, template=template)).ids(shown)
    finally:
        runtime.close()
    described = turns.describe(template, bos_token="<s>", eos_token="</s>")
    assert probe("prompt", turns=described, system=system, messages=messages)["value"] == expected


def test_runs_are_counted_as_the_converter_counts(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    alphabet = "abé日ठ्\u0301\u064b019²½٣ \t\n\u00a0\u3000.,!?😀_-\u200d"
    for _ in range(100):
        words = "".join(c * chance.choice((1, 1, 1, 7)) for c in chance.choices(alphabet, k=30))
        found = probe("run", words)["value"]
        for limit, over in ((found, None), (found - 1, found)):
            monkeypatch.setattr(long_words, "LONGEST", limit)
            assert long_words.too_long(words, model="gpt2", pre="default") == over, words
