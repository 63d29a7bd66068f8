"""Adapters in a bundle: proven, verified, and switched in a conversation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load
from edge.chat import commands, locate
from edge.chat.session import Session, Settings
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.runtimes.llamacpp import LlamaCppRuntime
from edge.runtimes.protocol import Adaptable
from edge.verification import verify
from tests.adapters import write_adapter

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def words(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("adapters")
    made = [write_adapter(tiny("phi4-mini"), root / name, seed=i, r=4 + i) for i, name in enumerate("ab")]
    return f"first={made[0]}", f"second={made[1]}"


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundle") / "b"
    request = ConvertRequest(
        str(tiny("phi4-mini")), ("cpu", "android"), output=output, context=128, adapters=words
    )
    convert(plan(request), Silent())
    return output


def test_a_bundle_proves_every_adapter_in_every_variant(bundle: Path) -> None:
    proof = json.loads((bundle / "proof.json").read_text())
    for variant in proof["variants"].values():
        assert set(variant["adapters"]) == {"first", "second"}
        for found in variant["adapters"].values():
            # An adapter that was left out would give the fidelity of another model: its own effect.
            assert found["effect"]["kl_mean"] > 20 * found["fidelity"]["kl_mean"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["adapters"]] == ["first", "second"]
    assert load(bundle).adapters == ("first", "second")


def test_verify_proves_those_whose_directories_are_given(
    tiny: Tiny, words: tuple[str, ...], bundle: Path
) -> None:
    found = verify(bundle, str(tiny("phi4-mini")), Silent(), adapters=words[:1])
    assert found.ok
    assert found.unproven_adapters == ("second",)


def test_an_adapter_in_anothers_place_fails_the_proof(
    tiny: Tiny, words: tuple[str, ...], bundle: Path
) -> None:
    swapped = (words[1].replace("second", "first"), words[0].replace("first", "second"))
    found = verify(bundle, str(tiny("phi4-mini")), Silent(), adapters=swapped)
    assert not found.ok
    assert found.proof is not None
    for variant in found.proof["variants"].values():
        assert any("is not what the adapter says" in failure for failure in variant["failures"])
        assert any("fidelity" in failure for failure in variant["failures"])


def test_a_damaged_adapter_is_seen_by_its_hash(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "b")
    file = next(copy.rglob("second.gguf"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert verify(copy, None, Silent()).damage


@pytest.mark.parametrize("variant", ["onnx-int4", "gguf-int4"])
def test_a_conversation_goes_on_with_another_adapter(bundle: Path, variant: str) -> None:
    """What is said after a switch is what a new conversation with that adapter says; nothing cached is kept."""
    chosen = locate.choose(bundle, variant)

    def session() -> Session:
        runtime = open_runtime(chosen.path, context_length=chosen.context_length)
        return Session(runtime, settings=Settings(seed=1, max_tokens=6), check_adapter=chosen.check_adapter)

    switching = session()
    "".join(switching.ask("one two three"))
    history = list(switching.messages)
    commands.run(switching, "/adapter second")
    assert "second" in (commands.run(switching, "/adapter") or "")
    switched = "".join(switching.ask("and then?"))
    commands.run(switching, "/adapter none")
    assert isinstance(switching.runtime, Adaptable)
    assert switching.runtime.adapter is None

    fresh = session()
    fresh.use_adapter("second")
    fresh.replace(history)
    assert "".join(fresh.ask("and then?")) == switched
    for each in (switching, fresh):
        each.runtime.close()


def test_a_kept_state_belongs_to_its_adapter(bundle: Path) -> None:
    """llama.cpp's saved state of one adapter must never be taken for another's."""
    runtime = open_runtime(next(bundle.glob("*.gguf")))
    assert isinstance(runtime, LlamaCppRuntime)
    keys = set()
    for name in (None, "first", "second"):
        runtime.use_adapter(name)
        keys.add(runtime.state_key)
    assert len(keys) == 3
    logits = {}
    for name in ("first", "second"):
        runtime.use_adapter(name)
        logits[name] = runtime.append([5, 6, 7])
    assert not np.array_equal(logits["first"], logits["second"])
    runtime.close()
