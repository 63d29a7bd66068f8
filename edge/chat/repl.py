"""The chat on a terminal: reads questions, prints answers as they come, obeys Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from converters.errors import EdgeError
from edge.chat import commands
from edge.chat.session import Session

QUOTES = '"""'
_CONTROLS = {c: None for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def write(text: str) -> None:
    """A piece of an answer to stdout. On a terminal without control characters: a model must not drive it."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def history_file() -> Path:
    """$EDGE_STATE_DIR/chat_history, or under the platform's state directory; private to the person."""
    from platformdirs import user_state_path

    directory = Path(os.environ.get("EDGE_STATE_DIR") or user_state_path("edge"))
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "chat_history"
    file.touch(mode=0o600)
    return file


@contextmanager
def stoppable(session: Session) -> Iterator[None]:
    """Ctrl-C stops an answer at its next token; while the prompt is still being read it interrupts that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if not session.decoding:
            raise KeyboardInterrupt
        session.interrupt()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class LineReader:
    """Lines from a terminal: with prompt_toolkit and a history, or plain ones where TERM is dumb.

    `left` is what stood in the line when Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.left = ""
        self._read = self._plain if os.environ.get("TERM", "dumb") == "dumb" else self._toolkit()

    def read(self, prompt: str) -> str:
        """One line. Raises EOFError on Ctrl-D and KeyboardInterrupt on Ctrl-C."""
        self.left = ""
        return self._read(prompt)

    def _plain(self, prompt: str) -> str:
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _toolkit(self) -> Callable[[str], str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
        from prompt_toolkit.output import create_output

        history: History
        try:
            history = FileHistory(str(history_file()))
        except OSError as error:
            say(f"no history file: {error}")
            history = InMemoryHistory()
        session: PromptSession[str] = PromptSession(
            history=history,
            completer=WordCompleter([f"/{name}" for name in commands.COMMANDS], sentence=True),
            complete_while_typing=False,
            output=create_output(stdout=sys.stderr),
        )

        def read(prompt: str) -> str:
            try:
                return session.prompt(prompt)
            except KeyboardInterrupt:
                self.left = session.default_buffer.text
                raise

        return read


def loop(session: Session, reader: LineReader) -> None:
    """Chat until /bye, Ctrl-D, or Ctrl-C twice at an empty prompt."""
    with suppress(KeyboardInterrupt):  # one that comes in the moment between two prompts
        _loop(session, reader)


def _loop(session: Session, reader: LineReader) -> None:
    warned = False
    while True:
        try:
            text = _read_message(reader)
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            if warned and not reader.left:
                say("")
                return
            warned = not reader.left
            say("(Ctrl-C again or Ctrl-D leaves)" if warned else "")
            continue
        warned = False
        try:
            if text.startswith("/"):
                reply = commands.run(session, text)
                if reply is None:
                    return
                say(reply)
            elif text.strip():
                answer(session, text)
        except EdgeError as error:
            say(f"error: {error.cause}\nhint: {error.hint}")


def answer(session: Session, text: str) -> None:
    """Stream one answer to stdout, ending with a newline; Ctrl-C stops it and comes back."""
    try:
        with stoppable(session):
            for piece in session.ask(text):
                write(piece)
        write("\n")
    except KeyboardInterrupt:
        say("\n(stopped before the first word; the question is taken back)")
        return
    if session.last and session.last.stop not in ("stop_token", "stop_string"):
        say(f"({_REASONS[session.last.stop]})")


_REASONS = {
    "max_tokens": "stopped at max_tokens; /set max_tokens N allows more",
    "context": "stopped: the context is full",
    "interrupted": "stopped",
}


def _read_message(reader: LineReader) -> str:
    text = reader.read(">>> ")
    if not text.lstrip().startswith(QUOTES):
        return text
    lines = [text.lstrip().removeprefix(QUOTES)]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(reader.read("... "))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip("\n")
