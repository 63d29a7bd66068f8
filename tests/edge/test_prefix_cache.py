"""The prefix cache: the same answers as without it, and nothing that lies on the disk can harm a chat."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import edge.chat.identity as identity
from edge.chat import faster, locate
from edge.chat.identity import model_hash
from edge.chat.prefix import SHORTEST, PrefixCache
from edge.chat.session import Session, Settings
from edge.chat.state_store import MAGIC, StateStore
from edge.runtimes import EngineSettings, Runtime, open_runtime
from edge.runtimes.protocol import Stateful
from tests.edge.engines import SWITCH, random_ids, write_variant

Tiny = Callable[..., Path]
SYSTEM = "You answer in rhymes, and never twice in the same way. " * 12
KEY = "ab" * 32


@pytest.fixture(scope="module")
def model(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_variant("gguf", tiny("phi4-mini"), tmp_path_factory.mktemp("model"), context=4352)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notes: list[str]) -> StateStore:
    return StateStore(tmp_path / "prefixes", notes.append)


def states(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "prefixes").iterdir())


def stateful(path: Path, **options: str) -> Runtime:
    runtime = open_runtime(path, threads=1, settings=EngineSettings(**options))  # type: ignore[arg-type]
    assert isinstance(runtime, Stateful)
    return runtime


def answer(model: Path, store: StateStore | None, notes: list[str], system: str = SYSTEM) -> tuple[str, int]:
    """A first answer in a new process, as far as the engine goes; and how many tokens it did not read."""
    runtime = open_runtime(model, threads=1)
    try:
        prefix = PrefixCache(store, lambda: "model", notes.append)
        session = Session(runtime, settings=Settings(seed=1, max_tokens=24), system=system, prefix=prefix)
        text = "".join(session.ask("Tell me of the sea"))
        assert session.last is not None
        return text, session.last.cached_tokens
    finally:
        runtime.close()


# Past the switch the state is one of the long LongRoPE factors, in a longer context.
@pytest.mark.parametrize("length", [200, SWITCH + 10])
def test_a_restored_state_gives_the_same_logits_bit_for_bit(model: Path, length: int) -> None:
    ids = random_ids(length + 40)
    first, second = stateful(model), stateful(model)
    first.append(ids[:length])
    first.append(random_ids(7, seed=1))
    first.rewind(length)  # what was rewound is no part of the state
    assert isinstance(first, Stateful)
    assert isinstance(second, Stateful)
    assert second.import_state(ids[:length], first.export_state())
    assert second.position == length
    assert np.array_equal(first.append_all(ids[length:]), second.append_all(ids[length:]))
    first.close()
    second.close()


def test_answers_are_the_same_without_with_a_new_and_with_a_kept_state(
    model: Path, store: StateStore, tmp_path: Path, notes: list[str]
) -> None:
    plain, _ = answer(model, None, notes)
    assert answer(model, store, notes)[0] == plain
    [file] = states(tmp_path)
    kept = file.read_bytes()
    text, cached = answer(model, store, notes)
    assert text == plain
    assert cached >= SHORTEST
    assert states(tmp_path) == [file]
    assert file.read_bytes() == kept
    assert notes == []


def test_a_state_is_for_one_model_prompt_and_setting(model: Path, store: StateStore, tmp_path: Path) -> None:
    def key(path: Path, ids: list[int], known: str = "model", **options: str) -> str:
        runtime = stateful(path, **options)
        try:
            assert isinstance(runtime, Stateful)
            return PrefixCache(store, lambda: known, lambda note: None).key(runtime, ids)
        finally:
            runtime.close()

    ids = random_ids(SHORTEST)
    same = [key(model, ids), key(model, [*ids])]
    other = [key(model, ids[1:]), key(model, ids, "other"), key(model, ids, kv_type="f32")]
    assert len({*same, *other}) == 4


def test_a_conversation_that_goes_on_reads_the_prefix_once(
    model: Path, store: StateStore, tmp_path: Path, notes: list[str]
) -> None:
    runtime = open_runtime(model, threads=1)
    prefix = PrefixCache(store, lambda: "model", notes.append)
    session = Session(runtime, settings=Settings(seed=1, max_tokens=8), system=SYSTEM, prefix=prefix)
    for question in ("one", "two"):
        "".join(session.ask(question))
    assert session.last is not None
    assert session.last.cached_tokens > SHORTEST
    session.system = SYSTEM.upper()
    session.clear()
    "".join(session.ask("one"))
    assert len(states(tmp_path)) == 2
    session.system = "short"
    session.clear()
    "".join(session.ask("one"))
    assert len(states(tmp_path)) == 2
    runtime.close()


def _header(data: bytes, **changes: object) -> bytes:
    line, _, payload = data.removeprefix(MAGIC).partition(b"\n")
    return MAGIC + json.dumps(json.loads(line) | changes).encode() + b"\n" + payload


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in the magic": lambda data: data[:5],
    "cut in the header": lambda data: data[:40],
    "cut in the state": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "one bit": lambda data: data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:],
    "another format": lambda data: data.replace(MAGIC, MAGIC.replace(b"1", b"2")),
    "another key": lambda data: _header(data, key=KEY),
    "a length without end": lambda data: _header(data, length=1 << 62),
    "a length that is none": lambda data: _header(data, length="many"),
    "a header that is a list": lambda data: MAGIC + b"[]\n" + data,
    "a header of another encoding": lambda data: MAGIC + b"\xff\xfe\n" + data,
    "a header without end": lambda data: MAGIC + b"[" * 100_000,
    "another hash": lambda data: _header(data, sha256="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_of_and_rewritten(damage: str, tmp_path: Path, notes: list[str]) -> None:
    store, state = StateStore(tmp_path / "prefixes", notes.append), os.urandom(5000)
    store.save(KEY.replace("ab", "cd"), state)
    [file] = states(tmp_path)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert store.load(KEY.replace("ab", "cd")) is None
    assert len(notes) == 1
    assert notes[0].startswith(f"prefix cache: {file.name} is left unread: ")
    assert "\n" not in notes[0]
    store.save(KEY.replace("ab", "cd"), state)
    assert store.load(KEY.replace("ab", "cd")) == state


def test_a_state_that_the_engine_refuses_is_made_anew(
    model: Path, store: StateStore, tmp_path: Path, notes: list[str]
) -> None:
    """Sound by its own header, and still not a state of this prompt: of fewer tokens, cut, or noise."""
    plain, _ = answer(model, store, notes)
    [file] = states(tmp_path)
    kept = file.read_bytes()
    key = json.loads(kept.removeprefix(MAGIC).partition(b"\n")[0])["key"]
    runtime = stateful(model)
    runtime.append(random_ids(50))
    assert isinstance(runtime, Stateful)
    state = runtime.export_state()
    runtime.close()
    for forged in (state, state[:-64], b"", os.urandom(4096), b"\xff" * 4096):
        notes.clear()
        store.save(key, forged)
        assert answer(model, store, notes)[0] == plain
        assert len(notes) == 1
        assert "refuses the state" in notes[0]
        assert file.read_bytes() == kept


def test_the_least_recently_used_states_go_first(tmp_path: Path, notes: list[str]) -> None:
    store = StateStore(tmp_path / "prefixes", notes.append, limit=4000)
    keys = [f"{i:02}" * 32 for i in range(4)]
    for age, key in enumerate(keys[:3]):
        store.save(key, bytes(1000))
        file = next(f for f in states(tmp_path) if f.name.startswith(key[:32]))
        os.utime(file, (1_000_000 + age, 1_000_000 + age))
    assert store.load(keys[0]) is not None  # the oldest, used again
    store.save(keys[3], bytes(1000))
    assert [store.load(key) is not None for key in keys] == [True, False, True, True]
    assert sum(file.stat().st_size for file in states(tmp_path)) <= 4000 + 3 * 200  # the headers
    store.save(keys[1], bytes(4001))
    assert notes == ["prefix cache: a state of 0 MiB is over the limit of 0"]
    assert len(states(tmp_path)) == 3


def test_a_cache_that_cannot_be_written_is_a_note(model: Path, tmp_path: Path, notes: list[str]) -> None:
    """A file where the directory should be: what root, who runs tests, cannot write either."""
    (tmp_path / "file").write_text("")
    store = StateStore(tmp_path / "file" / "prefixes", notes.append)
    plain, _ = answer(model, None, notes)
    assert answer(model, store, notes)[0] == plain
    assert len(notes) == 2
    assert all(note.startswith("prefix cache: ") and "Not a directory" in note for note in notes)


def test_two_chats_at_once_see_whole_states_or_none(tmp_path: Path, notes: list[str]) -> None:
    contents = {f"{i:02}" * 32: os.urandom(20_000) for i in range(3)}

    def chat(turn: int) -> None:
        store = StateStore(tmp_path / "prefixes", notes.append, limit=45_000)
        for _ in range(30):
            for key, data in contents.items():
                assert store.load(key) in (data, None)
                store.save(key, data)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(chat, range(4)))
    assert notes == []
    assert not [file for file in states(tmp_path) if file.suffix == ".part"]


def test_the_hash_of_a_model_follows_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF one")
    monkeypatch.setattr(identity, "_SETTLED_NS", 0)
    first = model_hash(file, None)
    with monkeypatch.context() as patch:
        patch.setattr(identity.cache, "sha256_of", lambda path: pytest.fail("it was read again"))
        assert model_hash(file, None) == first
    of_bundle = model_hash(file, "a" * 64)
    time.sleep(0.01)  # longer than the grain of a file's times
    file.write_bytes(b"GGUF two")
    assert model_hash(file, None) != first
    assert model_hash(file, "a" * 64) != of_bundle  # altered behind its manifest's back
    parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(b"GGUF")
    whole = model_hash(parts[0], None)
    time.sleep(0.01)
    parts[1].write_bytes(b"GGUG")
    assert model_hash(parts[0], None) != whole


def test_onnxruntime_genai_has_no_door_for_a_state(tiny: Tiny, tmp_path: Path, notes: list[str]) -> None:
    """Why only GGUF variants have a prefix cache. When this fails, a new version may have opened one.

    A generator takes keys and values (`set_model_input`) before its first run, and that run is right; but it
    keeps them, and the mask, for every run after it: what came since is lost.
    """
    og = pytest.importorskip("onnxruntime_genai")
    folder = write_variant("onnx", tiny("phi4-mini"), tmp_path, context=256)
    runtime, chosen = open_runtime(folder), locate.choose(folder, None)
    for asked, told in ((None, []), (True, [f"no prefix cache: {runtime.name} has no way to"])):
        notes.clear()
        assert faster.prefix_cache(runtime, chosen, asked, notes.append) is None
        assert [note[: len(told[0])] for note in notes] == told
    runtime.close()
    model = og.Model(str(folder))
    ids = np.array(random_ids(46), np.int32)

    def generator() -> object:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=256, do_sample=False)
        return og.Generator(model, parameters)

    def run(engine: object, start: int, stop: int) -> np.ndarray:
        engine.append_tokens(ids[start:stop].reshape(1, -1))  # type: ignore[attr-defined]
        return np.asarray(engine.get_output("logits"))[0, -1]  # type: ignore[attr-defined]

    layers = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]["num_hidden_layers"]

    def give(engine: object, name: str, value: np.ndarray) -> None:
        given.append(value)  # it is not copied
        engine.set_model_input(name, value)  # type: ignore[attr-defined]

    given: list[np.ndarray] = []
    first, second = generator(), generator()
    run(first, 0, 40)
    for layer in range(layers):
        for kind in ("key", "value"):
            state = np.array(first.get_output(f"present.{layer}.{kind}"))  # type: ignore[attr-defined]
            give(second, f"past_key_values.{layer}.{kind}", state)
    give(second, "attention_mask", np.ones((1, 45), np.int64))
    assert np.abs(run(first, 40, 45) - run(second, 40, 45)).max() < 1e-4
    give(second, "attention_mask", np.ones((1, 46), np.int64))
    assert np.abs(run(first, 45, 46) - run(second, 45, 46)).max() > 0.1
