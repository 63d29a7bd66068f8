"""A target's profile: what was measured, what follows from it, and that the engines are given it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.profile import ANSWER, GRAPHS, TARGETS, Costs, choose, write
from benchmarks.profile_trials import CONTROL, MODELS, candidates
from converters.onnx.decoder_graph import ACCURACY_LEVEL
from edge.benchmarking.spread import Spread
from edge.cli.bench import contender
from edge.runtimes import EngineSettings
from edge.targets import load_targets
from edge.targets.profile import Trial, parse
from edge.targets.settings import settings_for
from quant.blocks import BLOCK
from quant.recipe import Recipe

TRIAL = Trial("batch", "64", "512", "random 0.9B", "cpu", 512, (0.8, 0.7, 0.9), (1.0, 0.9, 1.1), True)
BUILT_IN = Path(__file__).parents[2] / "edge" / "targets"


def test_what_profiles_say_of_conversions_is_what_conversions_do() -> None:
    storages = {rule.pattern: rule.storage for rule in Recipe.preset("int4").rules}
    for graph in GRAPHS.values():
        assert graph["block_size"] == BLOCK
        assert graph["embedding"] == storages["embedding"]
        assert graph["lm_head"] == storages["lm_head"]
    assert GRAPHS["cpu"]["accuracy_level"] == ACCURACY_LEVEL
    # The others' devices are not here to be measured.
    assert {name: t.format for name, t in load_targets().items() if t.format in ("onnx", "gguf")} == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_built_in_profile_chooses_what_its_own_measurements_reject(name: str) -> None:
    profile = load_targets()[name].profile
    for setting, value in profile.engine.to_data().items():
        rows = [t for t in profile.measured if (t.setting, t.value) == (setting, str(value).lower())]
        assert rows, f"{setting} was never measured"
        assert all(t.same_answers and max(t.prefill[0], t.decode[0]) > 1 for t in rows)
    if profile.measured:
        assert profile.machine
        assert profile.graph == GRAPHS[name]


def test_a_written_profile_is_read_back_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "cpu.toml"
    shutil.copy(BUILT_IN / "cpu.toml", file)
    before = file.read_text().split("[profile]")[0]
    chosen = EngineSettings(batch=64, spinning=False)
    write(file, chosen, [TRIAL])
    write(file, chosen, [TRIAL, TRIAL])  # once more, in place of the first
    text = file.read_text()
    assert text.startswith(before.rstrip())
    project = tmp_path / "edge.toml"
    lines = [f"[targets.mine.{line[1:]}" if line.startswith("[") else line for line in text.splitlines()]
    project.write_text("[targets.mine]\n" + "\n".join(lines))
    profile = load_targets(tmp_path)["mine"].profile
    assert (profile.engine, profile.measured, profile.graph) == (chosen, (TRIAL, TRIAL), GRAPHS["cpu"])


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ({"speed": 1}, "no key speed"),
        ({"engine": {"speed": 1}}, "profile.engine: there is no engine setting 'speed'"),
        ({"measured": [{"prefill": [1, 1], "decode": [1, 1, 1]}]}, r"prefill is not \[median"),
        ({"measured": [{"prefill": [1, 1, 1]}]}, "decode"),
    ],
)
def test_a_wrong_profile_names_what_is_wrong(table: dict[str, object], cause: str) -> None:
    with pytest.raises((TypeError, KeyError), match=cause):
        parse(table)


def test_only_gains_on_every_model_that_leave_the_answers_alone_are_chosen() -> None:
    both = [1.2] * len(MODELS)
    assert choose("gguf", {("flash_attention", "true"): both}) == EngineSettings(flash_attention=True)
    assert choose("gguf", {("flash_attention", "true"): [1.2, 0.99]}) == EngineSettings()
    assert choose("gguf", {("flash_attention", "true"): [1.2]}) == EngineSettings()
    control = {(CONTROL, "as it is"): [0.9, 1.21], ("flash_attention", "true"): both}
    assert choose("gguf", control) == EngineSettings()  # less than the noise
    assert choose("gguf", {("kv_type", "q4_0"): both}) == EngineSettings()  # faster, and other answers
    batches = {("batch", "64"): [1.1, 1.3], ("batch", "128"): [1.2, 1.2], ("repack", "false"): [1.01, 1.01]}
    assert choose("gguf", batches) == EngineSettings(batch=128, repack=False)


def test_a_turn_of_chat_is_its_prompt_and_its_answer() -> None:
    costs = Costs(Spread((1.0, 2.0)), Spread((0.1, 0.2)))
    assert costs.turn().samples == (1 + 0.1 * ANSWER, 2 + 0.2 * ANSWER)


@pytest.mark.parametrize("file_format", ["onnx", "gguf"])
def test_every_candidate_is_one_setting_or_one_artifact(file_format: str) -> None:
    names = set()
    for candidate in candidates(file_format):
        changes = len(candidate.settings.to_data()) + bool(candidate.altered)
        assert changes == (candidate.setting != CONTROL)
        names.add((candidate.setting, candidate.value))
    assert len(names) == len(list(candidates(file_format)))


def test_an_artifact_gets_the_profile_of_its_own_target_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built_in = load_targets()
    mine = (BUILT_IN / "android.toml").read_text().split("[")[0]
    Path("edge.toml").write_text(
        f"[targets.zebra]\n{mine}\n[targets.zebra.profile]\nengine = {{ batch = 77 }}\n"
    )
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    assert settings_for(file, ["zebra"]) == EngineSettings(batch=77)
    assert settings_for(file) == settings_for(file, ["gone"]) == built_in["android"].profile.engine
    assert settings_for(tmp_path) == built_in["cpu"].profile.engine
    assert contender("x.gguf", None, 12).settings == built_in["android"].profile.engine
