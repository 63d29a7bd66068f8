"""The command line: what it imports, how it fails, what goes to which stream."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edge.targets
from converters import errors
from edge import cli

Tiny = Callable[..., Path]
ROOT = Path(__file__).parents[2]
HEAVY = {
    "gguf", "huggingface_hub", "llama_cpp", "numpy", "onnx", "onnxruntime", "onnxruntime_genai", "prompt_toolkit",
    "rich", "tokenizers", "torch", "transformers",
}  # fmt: skip
RUN = "import sys; from edge.cli import main; sys.exit(main())"
SGR = re.compile(rb"\x1b\[[0-9;]*m")


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([c, "--help"] for c in cli.COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, edge.cli; code = edge.cli.main(sys.argv[1:]); print('\\n', *sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "typer" in loaded, "the listing of modules is broken"
    assert not loaded & HEAVY


def test_the_list_of_commands_says_what_each_says_itself() -> None:
    for name, line in cli.COMMANDS.items():
        assert cli.load(name).help.splitlines()[0] == line


def test_every_command_has_json() -> None:
    for name in cli.COMMANDS:
        options = {option for parameter in cli.load(name).params for option in parameter.opts}
        assert "--json" in options, name


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def load_targets() -> Any:
        raise error

    monkeypatch.setattr(edge.targets, "load_targets", load_targets)
    return cli.main(["targets"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.CheckpointError("cause", hint="step"), 1),
        (errors.UnsupportedError("cause", hint="step"), 1),
        (errors.BundleError("cause", hint="step"), 1),
        (errors.SourceError("cause", hint="step"), 1),
        (errors.MachineError("cause", hint="step"), 2),
        (errors.ProofError("cause", hint="step"), 3),
        (errors.AccessError("cause", hint="step"), 4),
    ],
    ids=lambda v: type(v).__name__,
)
def test_an_expected_error_is_two_lines_and_a_code(
    error: errors.EdgeError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == code
    assert capsys.readouterr() == ("", "error: cause\nhint: step\n")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("a\nb"), "unexpected RuntimeError: a b"),
        (ZeroDivisionError(), "unexpected ZeroDivisionError"),
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device"),
        (
            BrokenPipeError(32, "Broken pipe"),
            "a connection broke: [Errno 32] Broken pipe",
        ),  # a socket's, as stdout is whole
    ],
    ids=lambda v: type(v).__name__,
)
def test_anything_else_is_two_lines_and_2(
    error: Exception, cause: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == 2
    out, told = capsys.readouterr()
    assert out == ""
    assert told.splitlines()[0] == f"error: {cause}"
    assert told.splitlines()[1].startswith("hint: ")
    assert len(told.splitlines()) == 2


def test_the_traceback_comes_on_request_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_DEBUG", "1")
    assert fail_with(RuntimeError("here"), monkeypatch) == 2
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.splitlines()[-2] == "error: unexpected RuntimeError: here"


def test_a_message_cannot_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(errors.CheckpointError("tensor \x1b[2Jx\r\u202e", hint="\x07step"), monkeypatch)
    assert capsys.readouterr().err == "error: tensor \\x1b[2Jx \\u202e\nhint: \\x07step\n"


@pytest.mark.parametrize(
    "arguments",
    [["cnovert"], ["--nope"], ["convert"], ["convert", "x"], ["convert", "x", "-t", "cpu", "--precision", "int3"],
     ["convert", "x", "-t", "cpu", "--context", "0"], ["verify"], ["targets", "extra"], ["inspect"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_usage_is_the_persons_to_fix(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 1
    out, told = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in told.splitlines()] == ["error", "hint"]


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


def test_interrupted_is_130() -> None:
    code = (
        "import os, signal, sys, edge.targets, edge.cli\n"
        "edge.targets.load_targets = lambda: os.kill(os.getpid(), signal.SIGINT) or __import__('time').sleep(60)\n"
        "sys.exit(edge.cli.main(['targets']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "targets", "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    told = process.stderr.read()
    assert (process.wait(60), told) == (0, b"")


def test_convert_inspect_verify(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, bundle = str(tiny("phi4-mini")), tmp_path / "b"
    common = ["convert", checkpoint, "-t", "cpu", "--target", "android", "-o", str(bundle)]

    assert cli.main([*common, "--dry-run", "--json"]) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["write_bytes"] > 0
    assert told == ""
    assert not bundle.exists()

    assert cli.main([*common, "--dry-run"]) == 0
    assert f"would write {bundle}" in capsys.readouterr().out
    assert not bundle.exists()

    assert cli.main([*common, "--no-proof"]) == 0
    out, told = capsys.readouterr()
    assert out == f"{bundle}\n", "stdout is the bundle's place and nothing else"
    assert "MB/s" in told
    assert "peak memory" in told
    assert "\x1b" not in told
    assert "\r" not in told

    assert cli.main(["verify", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert cli.main(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "bundle"

    file = next(bundle.glob("*.gguf"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert cli.main(["verify", str(bundle), "--json"]) == 1
    out, told = capsys.readouterr()
    assert json.loads(out)["ok"] is False
    assert told.splitlines()[0].startswith(f"error: {bundle} is not what its manifest says: {file.name}")


def on_a_terminal(arguments: list[str], code: str = RUN, **environment: str) -> bytes:
    """What the command writes to a stderr that is a terminal."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=other,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": "", **environment},
    )  # fmt: skip
    os.close(other)
    data = b""
    try:
        while piece := os.read(main, 4096):
            data += piece
    except OSError:  # Linux says EIO when the last writer has closed
        pass
    process.wait(60)
    os.close(main)
    return data


def test_bars_and_colour_on_a_terminal_only(tiny: Tiny, tmp_path: Path) -> None:
    arguments = ["convert", str(tiny("phi4")), "-t", "cpu", "--no-proof", "-o"]
    drawn = on_a_terminal([*arguments, str(tmp_path / "a")])
    assert b"\x1b[" in drawn
    assert b"convert: " in drawn
    assert not SGR.search(on_a_terminal([*arguments, str(tmp_path / "b")], NO_COLOR="1"))

    assert on_a_terminal(["inspect", "/nowhere"]).startswith(b"\x1b[1;31merror\x1b[0m: ")
    assert on_a_terminal(["inspect", "/nowhere"], NO_COLOR="1").startswith(b"error: ")
    assert on_a_terminal(["inspect", "/nowhere"], TERM="dumb").startswith(b"error: ")


def test_an_error_gives_the_cursor_back(tiny: Tiny, tmp_path: Path) -> None:
    code = (
        "import sys, edge.sources, edge.cli\n"
        "def resolve(*a, progress, **k):\n"
        "    progress.stage('download', 100)\n"
        "    progress.advance(10)\n"
        "    raise OSError(5, 'gone')\n"
        "edge.sources.resolve = resolve\n"
        "sys.exit(edge.cli.main(['pull', 'x']))"
    )
    drawn = on_a_terminal([], code=code)
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h") == 1, "the live line hides the cursor"
    assert drawn.index(b"\x1b[?25h") < drawn.index(b"gone")


def complete(line: str, cwd: Path = ROOT) -> list[str]:
    words = line.split(" ")
    done = run(cwd=cwd, _EDGE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_completion(tmp_path: Path) -> None:
    assert complete("edge c") == ["convert", "chat", "classify"]
    assert complete("edge convert x --target an") == ["android", "android-npu"]
    assert complete("edge convert smol") == ["smollm2-135m-instruct"]
    (tmp_path / "edge.toml").write_text("not toml [")
    (tmp_path / "models.lock").write_text("not toml [")
    assert complete("edge convert x --target an", tmp_path) == []
    assert complete("edge convert smol", tmp_path) == []


def test_file_names_that_are_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.gguf")
    (tmp_path / name).write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    done = subprocess.run(
        [sys.executable, "-c", RUN, "inspect", name, "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == name


def test_sigint_is_reset_for_nobody() -> None:
    """`main` leaves the process's signal handling as it found it: chat and convert rely on KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    cli.main(["--version"])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_stdout_is_no_error() -> None:
    edge = Path(sys.executable).with_name("edge")
    done = subprocess.run(["sh", "-c", f"'{edge}' targets >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
