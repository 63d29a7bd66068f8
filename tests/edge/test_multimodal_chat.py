"""`edge chat` with pictures and recordings as people have them: PNG, JPEG, WAV, FLAC."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.errors import EdgeError, MediaError
from edge import cli
from edge.chat import commands
from edge.chat.session import Session, Settings
from edge.runtimes import open_runtime
from edge.runtimes.multimodal.runtime import MultimodalRuntime
from tests.edge.multimodal_support import VOCABULARY, make, write_media

TinyMultimodal = Callable[..., Path]
Open = Callable[[], Session]


@pytest.fixture(scope="module")
def bundle(tiny_multimodal: TinyMultimodal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tiny_multimodal("phi4_multimodal", vocab_size=VOCABULARY)
    return make(checkpoint, tmp_path_factory.mktemp("chat") / "b", precision="f32", context=1024)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Of each test's own, for some lose files."""
    write_media(tmp_path)
    return tmp_path


@pytest.fixture
def session(bundle: Path) -> Iterator[Open]:
    opened: list[Session] = []

    def start() -> Session:
        runtime = open_runtime(bundle / "multimodal-f32", threads=1)
        opened.append(Session(runtime, settings=Settings(seed=1, max_tokens=8)))
        return opened[-1]

    yield start
    for each in opened:
        each.runtime.close()


def say(session: Session, text: str) -> str:
    """What is answered, with how many tokens were read."""
    answer = "".join(session.ask(text))
    return f"{session.last.prompt_tokens if session.last else 0}: {answer}"


def chat(bundle: Path, capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    arguments = ["chat", "--model", bundle, "--json", "--seed", "1", "-n", "8", "--threads", "1", *words]
    assert cli.main(list(map(str, arguments))) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)


@pytest.mark.parametrize("sound", ["a.wav", "b.flac"])
@pytest.mark.parametrize("picture", ["a.png", "b.jpg"])
def test_one_question(
    picture: str, sound: str, bundle: Path, media: Path, session: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a session answers that was shown the same, and with as many tokens more as the files take."""
    words = ["--image", media / picture, "--audio", media / sound, "what is this?"]
    answer = chat(bundle, capsys, *words)
    plain = chat(bundle, capsys, "what is this?")
    same = session()
    tokens = same.attach("image", media / picture) + same.attach("audio", media / sound)
    assert say(same, "what is this?") == f"{answer['prompt_tokens']}: {answer['answer']}"
    assert answer["prompt_tokens"] == plain["prompt_tokens"] + tokens
    assert answer["answer"] != plain["answer"]
    assert answer["runtime"].startswith("onnxruntime ")


def test_several_turns_are_as_the_same_conversation_fresh(media: Path, session: Open) -> None:
    """The mode changes at the second and third turn; every turn is answered as by a session that begins with all
    before it as its history."""
    talking = session()
    turns: list[tuple[str, list[str]]] = [
        ("hello", []),
        ("listen", ["/audio b.flac"]),
        ("and look", ["/image a.png", "/image b.jpg"]),
        ("more", ["/audio a.wav"]),
        ("so?", []),
    ]
    cached = []
    for text, lines in turns:
        history = list(talking.messages)
        fresh = session()
        fresh.replace(history)
        for each in (talking, fresh):
            for line in lines:
                command, name = line.split()
                assert "tokens" in (commands.run(each, f"{command} {media / name}") or "")
        assert say(talking, text) == say(fresh, text)
        assert talking.last is not None
        cached.append(talking.last.cached_tokens)
    assert cached[:3] == [0, 0, 0]  # read anew where another adapter takes over
    assert 0 < cached[3] < cached[4]
    assert [len(m.get("media", ())) for m in talking.messages[::2]] == [0, 1, 2, 1, 0]


def test_a_saved_conversation_goes_on_with_what_it_saw(media: Path, session: Open) -> None:
    talking, other = session(), session()
    commands.run(talking, f"/image {media / 'a.png'}")
    say(talking, "look")
    commands.run(talking, f"/save {media / 'saved.json'}")
    commands.run(other, f"/load {media / 'saved.json'}")
    assert other.messages == talking.messages
    assert say(other, "and?") == say(talking, "and?")


@pytest.mark.parametrize(
    "attached", [{"kind": "image"}, {"kind": "smell", "path": "a"}, {"kind": "image", "path": 3}, "a.png"]
)
def test_a_saved_conversation_with_wrong_media_is_refused(
    attached: Any, tmp_path: Path, session: Open
) -> None:
    message = {"role": "user", "content": "x", "media": [attached]}
    (file := tmp_path / "saved.json").write_text(json.dumps({"system": None, "messages": [message]}))
    talking = session()
    with pytest.raises(EdgeError, match="is no saved conversation"):
        commands.run(talking, f"/load {file}")
    assert talking.messages == []


def test_a_file_that_vanishes_and_comes_back(media: Path, session: Open) -> None:
    talking = session()
    talking.attach("image", media / "a.png")
    say(talking, "look")
    before = list(talking.messages)
    (media / "a.png").rename(media / "gone.png")
    with pytest.raises(MediaError, match=r"a\.png cannot be read"):
        say(talking, "again")
    assert talking.messages == before, "the question is taken back"
    shutil.copy2(media / "gone.png", media / "a.png")
    again = say(talking, "again")
    fresh = session()
    fresh.replace(before)
    assert say(fresh, "again") == again


def test_another_picture_under_the_same_name_is_seen(media: Path, session: Open) -> None:
    talking = session()
    talking.attach("image", media / "a.png")
    first = say(talking, "look")
    (media / "a.png").write_bytes((media / "c.png").read_bytes())
    fresh = session()
    fresh.replace(talking.messages)
    changed = say(talking, "look")
    assert changed == say(fresh, "look")
    assert changed != first


def test_what_goes_wrong_leaves_the_conversation_as_it_was(media: Path, session: Open) -> None:
    talking = session()
    talking.attach("audio", media / "c.wav")
    (media / "half.wav").write_bytes((media / "a.wav").read_bytes()[:9000])
    (media / "text.png").write_text("no picture")
    for command, name in (("audio", "half.wav"), ("image", "text.png"), ("image", "nowhere.png")):
        with pytest.raises(MediaError):
            commands.run(talking, f"/{command} {media / name}")
    talking.attach("image", media / "c.png")
    assert isinstance(talking.runtime, MultimodalRuntime)
    with pytest.raises(EdgeError, match="takes 1"):
        say(talking, "x " * 900)
    assert talking.messages == []
    say(talking, "short")
    assert [each["kind"] for each in talking.messages[0]["media"]] == ["audio", "image"]
    commands.run(talking, f"/image {media / 'a.png'}")
    commands.run(talking, "/clear")
    fresh = session()
    assert say(talking, "hello") == say(fresh, "hello")
    assert "media" not in talking.messages[0]


def test_the_oldest_picture_goes_when_the_context_is_full(media: Path, session: Open) -> None:
    talking = session()
    told: list[str] = []
    talking._note = told.append
    for i in range(12):
        talking.attach("image", media / "a.png")
        talking.attach("image", media / ("b.jpg" if i % 2 else "c.png"))
        say(talking, f"look {i}")
    assert any("context full" in line for line in told)
    fresh = session()
    fresh.replace(talking.messages)
    assert say(talking, "so?") == say(fresh, "so?")
