"""A conversation: cache reuse, stop rules, overflow, interrupts; and the commands of the REPL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from converters.errors import EdgeError, UnsupportedError
from edge.chat import commands
from edge.chat.sampling import Sampling
from edge.chat.session import Session, Settings
from edge.runtimes import Runtime, open_runtime
from tests.edge.engines import ENGINES, TEMPLATE, Scripted, write_variant

Tiny = Callable[..., Path]
SEEDED = Settings(seed=1, max_tokens=20)


def ask(session: Session, text: str) -> str:
    return "".join(session.ask(text))


def turn(question: str, answer: str) -> str:
    return f"<|user|>{question}<|end|><|assistant|>{answer}<|end|>"


@pytest.fixture(scope="module", params=ENGINES)
def runtime(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    directory = tmp_path_factory.mktemp(request.param)
    path = write_variant(request.param, tiny("phi4-mini"), directory, context=1024)
    opened = open_runtime(path, threads=1, exact=True)
    yield opened
    opened.close()


def test_turns_reuse_the_cache_and_answer_as_a_fresh_one(runtime: Runtime) -> None:
    settings = replace(SEEDED, sampling=Sampling(temperature=0.8, top_p=0.95))
    session = Session(runtime, settings=settings, system="Be brief.")
    questions = ["Hello", "What is <|end|> an edge?", "And a node?"]
    answers = [ask(session, question) for question in questions]
    assert session.last is not None
    assert session.last.cached_tokens > session.last.prompt_tokens // 2
    for i, question in enumerate(questions):
        runtime.rewind(0)
        fresh = Session(runtime, settings=settings, system="Be brief.")
        fresh.replace(session.messages[: 2 * i])
        assert ask(fresh, question) == answers[i]


def test_one_seed_one_answer(runtime: Runtime) -> None:
    def answer(seed: int) -> str:
        settings = Settings(Sampling(temperature=1.0, top_k=50), seed=seed, max_tokens=30)
        return ask(Session(runtime, settings=settings), "Tell me")

    assert answer(3) == answer(3) != answer(4)


def test_stops_at_the_stop_token_and_says_the_numbers() -> None:
    engine = Scripted(["Grüße ".encode(), b"\xf0\x9f", b"\x99\x82", b"!"])
    session = Session(engine, settings=SEEDED)
    assert list(session.ask("hi")) == ["Grüße ", "🙂", "!"]
    assert session.last is not None
    assert (session.last.stop, session.last.answer_tokens, session.last.text) == (
        "stop_token",
        5,
        "Grüße 🙂!",
    )
    assert session.last.prompt_tokens == len(engine.prompt) == len("<|user|>hi<|end|><|assistant|>")
    assert session.messages[-1] == {"role": "assistant", "content": "Grüße 🙂!"}


def test_other_ends_of_an_answer() -> None:
    def end(says: list[bytes], settings: Settings, context: int = 200) -> tuple[str, str]:
        session = Session(Scripted(says, context_length=context), settings=settings)
        text = ask(session, "hi")
        assert session.last is not None
        return text, session.last.stop

    prompt = len("<|user|>hi<|end|><|assistant|>")
    assert end([b"a", b"b", b"STO", b"P it"], replace(SEEDED, stop=("STOP",))) == ("ab", "stop_string")
    assert end([b"a"] * 9, replace(SEEDED, max_tokens=3)) == ("aaa", "max_tokens")
    assert end([b"a"] * 99, SEEDED, context=prompt + 4) == ("aaaa", "context")
    assert end([b"a", "🙂".encode()[:2]], SEEDED) == ("a\ufffd", "stop_token")
    assert end([b" spaced", b" out"], SEEDED) == ("spaced out", "stop_token")


def test_only_what_is_new_is_read() -> None:
    engine = Scripted([b"ok"])
    session = Session(engine, settings=SEEDED)
    ask(session, "one")
    engine.appended.clear()
    ask(session, "two")
    first = len("<|user|>one<|end|><|assistant|>")
    # The answer comes back as text, here under other ids, so the common prefix is the first prompt.
    assert (
        bytes(engine.appended[0]).decode() == (turn("one", "ok") + "<|user|>two<|end|><|assistant|>")[first:]
    )


def test_a_full_context_drops_the_oldest_turns_and_says_so() -> None:
    notes: list[str] = []
    engine = Scripted([b"ok"], context_length=160)
    session = Session(engine, settings=SEEDED, system="S" * 20, note=notes.append)
    for question in ("q1", "q2", "q3", "q4"):
        assert ask(session, question) == "ok"
    system = "<|system|>" + "S" * 20 + "<|end|>"
    assert engine.prompt == f"{system}{turn('q3', 'ok')}<|user|>q4<|end|><|assistant|>"
    assert notes == ["context full: the oldest 2 messages are no longer sent"] * 2
    assert len(session.messages) == 8  # /save still has everything
    with pytest.raises(UnsupportedError, match=r"takes 2\d\d tokens, the context holds 160"):
        ask(session, "x" * 180)
    assert len(session.messages) == 8
    assert ask(session, "q5") == "ok"


def test_an_interrupt_keeps_what_was_said_and_the_chat_goes_on(runtime: Runtime) -> None:
    session = Session(runtime, settings=Settings(seed=0, max_tokens=400))
    said = []
    for piece in session.ask("Hello"):
        said.append(piece)
        if len(said) == 3:
            session.interrupt()
    assert session.last is not None
    assert session.last.stop == "interrupted"
    assert session.last.answer_tokens < 400
    assert session.messages[-1]["content"] == "".join(said)
    after = ask(session, "Again")
    history = session.messages[:2]
    runtime.rewind(0)
    fresh = Session(runtime, settings=Settings(seed=0, max_tokens=400))
    fresh.replace(history)
    assert ask(fresh, "Again") == after


def test_an_interrupt_while_the_prompt_is_read_takes_the_question_back() -> None:
    class Interrupted(Scripted):
        def append(self, ids):  # type: ignore[no-untyped-def]
            self.fed += ids[:3]
            raise KeyboardInterrupt

    engine = Interrupted([b"ok"])
    session = Session(engine, settings=SEEDED)
    with pytest.raises(KeyboardInterrupt):
        ask(session, "hello")
    assert session.messages == []
    assert session.last is None
    engine.append = Scripted.append.__get__(engine)  # type: ignore[method-assign]
    assert ask(session, "hello") == "ok"
    assert engine.prompt == "<|user|>hello<|end|><|assistant|>"


def test_without_a_template_the_model_continues_the_text() -> None:
    notes: list[str] = []
    engine = Scripted([b" in", b" time"], template=None)
    session = Session(engine, settings=SEEDED, note=notes.append)
    assert ask(session, "Once upon") == " in time"
    assert engine.prompt == "Once upon"
    assert len(notes) == 1
    assert "no chat template" in notes[0]
    ignored = Session(Scripted([b"x"], template=TEMPLATE), settings=SEEDED, use_template=False)
    ask(ignored, "as it is")
    assert ignored.runtime.prompt == "as it is"  # type: ignore[attr-defined]


@pytest.fixture
def session() -> Session:
    return Session(Scripted([b"ok"]), settings=SEEDED)


def test_set_and_show(session: Session) -> None:
    assert commands.run(session, "/set temperature 0.5") == "temperature = 0.5"
    assert commands.run(session, "/set top_k 40") == "top_k = 40"
    assert commands.run(session, "/set max_tokens 7") == "max_tokens = 7"
    assert commands.run(session, "/set stop END OF") == "stop = ('END OF',)"
    assert session.settings == Settings(Sampling(temperature=0.5, top_k=40), 1, 7, ("END OF",))
    shown = commands.run(session, "/show")
    assert shown is not None
    for line in ("engine: scripted", "temperature = 0.5", "seed = 1", "system: none set"):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    "line",
    ["/nothing", "/set heat 1", "/set top_k 1.5", "/set top_p 2", "/set max_tokens 0", "/set seed -1",
     "/save", "/load /does/not/exist", "/save /does/not/exist"],
)  # fmt: skip
def test_a_wrong_command_changes_nothing_and_hints(session: Session, line: str) -> None:
    with pytest.raises(EdgeError) as error:
        commands.run(session, line)
    assert error.value.hint
    assert session.settings == SEEDED


def test_save_and_load_go_on_where_it_stopped(session: Session, tmp_path: Path) -> None:
    commands.run(session, "/system Be kind.")
    ask(session, "héllo")
    file = tmp_path / "chat.json"
    assert commands.run(session, f"/save {file}") == f"2 messages saved to {file}"
    other = Session(Scripted([b"ok"]), settings=SEEDED)
    commands.run(other, f"/load {file}")
    assert (other.system, other.messages) == (session.system, session.messages)
    assert ask(other, "more") == ask(session, "more")
    assert other.runtime.prompt == session.runtime.prompt  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"messages": 3}', '{"system": 1, "messages": []}', "[" * 100000,
     json.dumps({"system": None, "messages": [{"role": "root", "content": "x"}]}),
     json.dumps({"system": None, "messages": [{"role": "user", "content": 5}]})],
)  # fmt: skip
def test_a_file_that_is_no_conversation_is_refused(session: Session, tmp_path: Path, text: str) -> None:
    ask(session, "keep me")
    before = list(session.messages)
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UnsupportedError, match="no saved conversation"):
        commands.run(session, f"/load {tmp_path / 'bad.json'}")
    assert session.messages == before


def test_clear_system_stats_help_bye(session: Session) -> None:
    assert commands.run(session, "/stats") == "no answer yet"
    ask(session, "hi")
    stats = commands.run(session, "/stats")
    assert stats is not None
    assert [line.split(":")[0] for line in stats.splitlines()] == [
        "first token", "prompt", "answer", "context", "stopped by",
    ]  # fmt: skip
    commands.run(session, "/clear")
    assert session.messages == []
    ask(session, "hi")
    commands.run(session, "/system New rules.")
    assert (session.system, session.messages) == ("New rules.", [])
    commands.run(session, "/system")
    assert session.system is None
    text = commands.run(session, "/help")
    assert text is not None
    assert all(f"/{name}" in text for name in commands.COMMANDS)
    assert commands.run(session, "/bye") is None
