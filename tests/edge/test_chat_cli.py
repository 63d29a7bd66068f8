"""`edge chat` as a person meets it: real processes, pipes, and a terminal with Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from tests.edge.engines import write_variant

Tiny = Callable[..., Path]
EDGE = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())", "chat"]
ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"} | extra


@pytest.fixture(scope="module")
def place(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with bundles/first (older; both formats), bundles/second, and a bare GGUF."""
    directory = tmp_path_factory.mktemp("place")
    for name, targets in (("first", ("cpu", "android")), ("second", ("cpu",))):
        output = directory / "bundles" / name
        output.parent.mkdir(exist_ok=True)
        request = ConvertRequest(str(tiny("phi4-mini")), targets, output=output, precision="f16")
        convert(plan(request), Silent())
    os.utime(directory / "bundles" / "first" / "manifest.json", (1, 1))
    write_variant("gguf", tiny("phi4-mini"), directory, context=4096)
    return directory


def edge_chat(place: Path, *args: str, piped: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*EDGE, *args], cwd=place, input=piped, capture_output=True, check=False, env=environment()
    )


def as_json(place: Path, *args: str, piped: bytes = b"") -> dict[str, object]:
    done = edge_chat(place, *args, "--json", "-n", "8", piped=piped)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_the_model_is_a_path_a_name_or_the_newest_bundle(place: Path) -> None:
    assert str(as_json(place, "Hi")["model"]).startswith("second/")
    assert str(as_json(place, "Hi", "-m", "first")["model"]).startswith("first/")
    assert str(as_json(place, "first", "Hi")["model"]).startswith("first/")
    assert str(as_json(place, "bundles/first", "Hi")["model"]).startswith("first/")
    assert as_json(place, "tiny.gguf", "Hi")["model"] == "tiny.gguf"
    assert as_json(place, "tiny.gguf", piped=b"Hi")["model"] == "tiny.gguf"
    # With -m, a word that would name a model is the question.
    assert as_json(place, "first", "-m", "second")["prompt_tokens"] == as_json(
        place, "-m", "second", piped=b"first"
    )["prompt_tokens"]  # fmt: skip


def test_each_variant_of_a_bundle_answers(place: Path) -> None:
    manifest = json.loads((place / "bundles" / "first" / "manifest.json").read_text())
    names = [v["name"] for v in manifest["variants"]]
    assert len(names) > 1
    for name in names:
        answer = as_json(place, "Hi", "-m", "first", "--variant", name)
        assert answer["model"] == f"first/{name}"
    done = edge_chat(place, "Hi", "-m", "first", "--variant", "none")
    assert done.returncode == 1
    assert b"hint: it has: " in done.stderr


def test_stdout_is_the_answer_and_json_has_the_same(place: Path) -> None:
    args = ("tiny.gguf", "Tell me", "--temperature", "1", "--seed", "5")
    plain, again = edge_chat(place, *args, "-n", "8"), as_json(place, *args)
    assert plain.returncode == 0
    assert plain.stdout.decode().removesuffix("\n") == again["answer"]
    assert again["seed"] == 5
    assert again["stop"] in ("max_tokens", "stop_token")
    assert {"prompt_tokens", "answer_tokens", "first_token_s", "context_length"} <= set(again)
    assert again == again | {k: v for k, v in as_json(place, *args).items() if not k.endswith("_s")}


def test_piped_text_is_the_prompt_or_follows_it(place: Path) -> None:
    alone = as_json(place, "tiny.gguf", piped=b"Sum this up:\n\nA text.\n")
    joined = as_json(place, "tiny.gguf", "Sum this up:", piped=b"A text.\n")
    assert alone["answer"] == joined["answer"]
    assert alone["prompt_tokens"] == joined["prompt_tokens"]
    done = edge_chat(place, "tiny.gguf", "-n", "2", piped=b"bad \xff\xfe bytes")
    assert done.returncode == 0
    assert b"not all UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["-m", "tiny.gguf"], b"there is no prompt"),
        (["-m", "nowhere", "Hi"], b"'nowhere' is no bundle, GGUF file or genai folder"),
        (["What", "is", "this"], b"'What' names no model"),
        (["tiny.gguf", "Hi", "--top-p", "7"], b"top_p is 7"),
        (["tiny.gguf", "Hi", "--context", "999999"], b"allows 1 to 4096"),
        (["tiny.gguf", "word " * 5000], b"the context holds 4096"),
        (["tiny.gguf", "Hi", "--variant", "x"], b"is no bundle"),
    ],
)
def test_what_cannot_be_done_is_two_lines(place: Path, args: list[str], cause: bytes) -> None:
    done = edge_chat(place, *args)
    assert done.returncode == 1
    assert done.stdout == b""
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith(b"error: ")
    assert cause in error
    assert hint.startswith(b"hint: ")


def test_without_any_bundle_it_says_how_to_make_one(tmp_path: Path) -> None:
    done = edge_chat(tmp_path, "Hi")
    assert done.returncode == 1
    assert b"hint: edge convert" in done.stderr


class Terminal:
    """A process on a pseudo-terminal; `until` reads what it shows."""

    def __init__(self, args: list[str], cwd: Path, **extra: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(sys.executable, [*EDGE, *args], environment(PROMPT_TOOLKIT_NO_CPR="1", **extra))
        self.shown = ""

    def until(self, pattern: str, seconds: float = 20) -> str:
        """Text up to the end of the first match; escape sequences are left out."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # Linux says EIO when the other side has gone
                    data = b""
                if not data:
                    break
                text = data.decode("utf-8", "replace")
                self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r", "", text)
            assert time.monotonic() < end, f"waited for {pattern!r}, got {self.shown!r}"
        assert found, f"ended before {pattern!r}: {self.shown!r}"
        seen, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(params=["xterm", "dumb"])
def terminal(request: pytest.FixtureRequest, place: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A chat with a model of random weights, whose answers run on and on."""
    args = ["tiny.gguf", "--seed", "1", "--max-tokens", "4000"]
    opened = Terminal(args, place, TERM=request.param, EDGE_STATE_DIR=str(tmp_path / "state"))
    opened.until(">>>")
    yield opened
    os.close(opened.fd)


def test_a_conversation_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("Hello\r")
    terminal.until("Hello")
    terminal.until("[a-z]{20}|.{60}")  # the answer is coming
    terminal.type("\x03")
    terminal.until(r"\(stopped\)")
    terminal.until(">>>")
    terminal.type("/stats\r")
    assert "stopped by: interrupted, seed 1" in terminal.until(r"stopped by: .*\n")
    terminal.until(">>>")
    terminal.type("/set max_tokens 3\r")
    terminal.until("max_tokens = 3")
    terminal.until(">>>")
    terminal.type('"""two\r')
    terminal.until(r"\n\.\.\.")
    terminal.type('lines"""\r')
    terminal.until("stopped at max_tokens")
    terminal.until(">>>")
    terminal.type(f"/save {tmp_path / 'chat.json'}\r")
    terminal.until("4 messages saved")
    terminal.until(">>>")
    terminal.type("/wrong\r")
    terminal.until("error: there is no command /wrong\nhint: /help")
    terminal.until(">>>")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    saved = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [m["content"] for m in saved[::2]] == ["Hello", "two\nlines"]


def test_ctrl_c_at_the_prompt_leaves_only_the_second_time(terminal: Terminal) -> None:
    terminal.type("\x03")
    terminal.until("Ctrl-C again or Ctrl-D leaves")
    terminal.until(">>>")
    terminal.type("/show\r")  # anything else starts the count anew
    terminal.until("messages: 0")
    terminal.until(">>>")
    terminal.type("\x03")
    terminal.until("Ctrl-C again or Ctrl-D leaves")
    terminal.until(">>>")
    terminal.type("\x03")
    assert terminal.exit_code() == 0


def test_history_is_kept_and_private(place: Path, tmp_path: Path) -> None:
    def visit(typed: str, shown: str) -> None:
        opened = Terminal(["tiny.gguf"], place, TERM="xterm", EDGE_STATE_DIR=str(tmp_path))
        opened.until(">>>")
        opened.type(typed)
        opened.until(shown)
        opened.until(">>>")
        opened.type("/bye\r")
        assert opened.exit_code() == 0
        os.close(opened.fd)

    up = "\x1b[A"
    visit("/set seed 77\r", "seed = 77")
    visit(f"{up}{up}\r", "seed = 77")  # over /bye of the first visit
    assert (tmp_path / "chat_history").stat().st_mode & 0o077 == 0


def test_an_answer_does_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge.chat import repl

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    repl.write("a\x1b]0;title\x07\x9b31mb\tc\n")
    assert capsys.readouterr().out == "a]0;title31mb\tc\n"
