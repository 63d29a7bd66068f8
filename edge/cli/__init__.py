"""The command `edge`: one module a command, imported when that command runs and not before.

Errors have one form, two lines on stderr: `error: <cause>` and `hint: <what to try>`. Exit codes: 0 done,
1 the person's to fix (bad usage too), 2 a bug or the machine, 3 the proof failed, 4 access refused,
130 interrupted. `EDGE_DEBUG=1` adds the traceback.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import select
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from converters.errors import EdgeError
from edge.cli import console
from quant.distill.launch import check_alone, place

# The line of each command in `edge --help`, so that the page needs none of their modules; a test holds it
# equal to the first line of the command's docstring.
COMMANDS = {
    "convert": "Convert a checkpoint for one or more targets, with a proof.",
    "prune": "Prune a checkpoint while it trains (PLATON, LoSparse).",
    "distill": "Teach a smaller student; the result is a checkpoint.",
    "heal": "Make an adapter that wins back what quantization loses.",
    "shrink": "Run a plan: prune, distill, heal and convert in a chain.",
    "chat": "Chat with a bundle, a GGUF file or an ONNX folder.",
    "classify": "Say which label each text has, by a bundle of an encoder.",
    "serve": "Serve a model to programs that speak OpenAI's HTTP interface.",
    "eval": "Measure artifacts: perplexity, KL divergence, answers to tasks.",
    "verify": "Check a bundle's files, and its numbers against a checkpoint.",
    "bench": "Measure load time, memory, first token, prefill and decoding.",
    "report": "Show a bundle on one HTML page: size, errors, words, speed.",
    "inspect": "Show what is inside a checkpoint, GGUF, ONNX folder or bundle.",
    "package": "Make an app of a bundle: a signed APK for arm64 phones.",
    "push": "Bring a model to a phone, into the app's own folder.",
    "targets": "List the targets, or tell what a model fits.",
    "lock": "Pin models in models.lock, or check that the pins hold.",
    "pull": "Download models of models.lock and verify every byte.",
    "doctor": "Check this machine: packages, engines, memory, disk, adb.",
}
# Options whose value may be left out, and what stands for it then; typer knows no such thing.
OPTIONAL_VALUES = {"--calibrate": "default", "--prompt-lookup": "8"}
PATIENCE = 5.0
"""Seconds."""
EXIT_USAGE = 1
EXIT_BUG = 2
EXIT_INTERRUPTED = 130


class _Commands(TyperGroup):
    """Lists stand-ins, and imports `edge.cli.<name>` when <name> is the command to run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({n: TyperCommand(name=n, help=line) for n, line in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in and load(stand_in.name), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if not _reader_is_gone():
                raise _BrokenSocketError from error
            # A reader that has seen enough (`| head`) is no error. Python must not flush at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return result


class _BrokenSocketError(Exception):
    """Carries a BrokenPipeError past typer, which takes every one for stdout's and exits with 1."""


def load(name: str | None) -> Any:
    """The typer command `name`, from the function of that name in the module of that name."""
    function = getattr(importlib.import_module(f"edge.cli.{name}"), str(name))
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(function)
    return typer.main.get_command(alone)


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more: a socket can raise BrokenPipeError too."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            console.write(f"edge {installed('edge')}")
        except PackageNotFoundError:
            console.write("edge (not installed, run from its source)")
        raise typer.Exit


# Plain help pages: they need no colour and no box, and spare every start the import of rich.
app = typer.Typer(
    cls=_Commands, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.callback(invoke_without_command=True)
def _edge(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Small language models on phones and desktops: convert, prove, chat.

    Start with `edge convert smollm2-135m-instruct --target cpu`, then
    `edge chat -m bundles/smollm2-135m-instruct-cpu`.
    """
    if ctx.invoked_subcommand is None:
        console.write(ctx.get_help())
    elif ctx.invoked_subcommand != "distill":
        check_alone(f"edge {ctx.invoked_subcommand}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` when None); returns the exit code. Errors are told on stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: nobody reads it, which is no error
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # until the process ends
    if place().rank:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # the first of launched processes tells the result
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is no valid Unicode must not break the report about it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            complete = _complete(sys.argv[1:] if arguments is None else arguments)
            code = typer.main.get_command(app).main(complete, prog_name="edge", standalone_mode=False)
        finally:
            console.end_progress()
    except EdgeError as error:
        return _told(error, error.cause, error.hint, error.exit_code)
    except TyperException as error:
        words = sys.argv[1:] if arguments is None else arguments
        command = next((f"edge {w}" for w in words[:1] if w in COMMANDS), "edge")
        return _told(error, _usage(error), f"see `{command} --help`", EXIT_USAGE)
    except typer.Abort as error:
        return _told(
            error, "the input ended", "answer the question, or give the answer as an option", EXIT_USAGE
        )
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except MemoryError as error:
        hint = "close other programs, or try `--threads 1`"
        return _told(error, "out of memory", hint, EXIT_BUG)
    except _BrokenSocketError as wrapped:
        socket_error = wrapped.__cause__ or wrapped
        hint = "run the command again"
        return _told(socket_error, f"a connection broke: {socket_error}", hint, EXIT_BUG)
    except OSError as error:
        return _told(error, _os_cause(error), _os_hint(error), EXIT_BUG)
    except Exception as error:  # the outermost border: what arrives here is a bug, and is told as one
        cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _told(error, f"unexpected {cause}", "a bug; EDGE_DEBUG=1 shows where", EXIT_BUG)
    if code == EXIT_INTERRUPTED:
        _let_the_first_speak()
        if not place().local:  # all stop together
            console.say("interrupted")
    return code if isinstance(code, int) else 0


def _complete(arguments: Sequence[str]) -> list[str]:
    """The words with the values that OPTIONAL_VALUES lets a person leave out."""
    words = list(arguments)
    for i in reversed(range(len(words))):
        follower = words[i + 1] if i + 1 < len(words) else "-"
        value = OPTIONAL_VALUES.get(words[i])
        if value and (follower.startswith("-") or (value.isdecimal() and not follower.isdecimal())):
            words.insert(i + 1, value)
    return words


def _told(error: BaseException, cause: str, hint: str, code: int) -> int:
    _let_the_first_speak()
    if os.environ.get("EDGE_DEBUG") == "1":
        traceback.print_exception(error)
    console.fail(cause, hint)
    return code


def _let_the_first_speak() -> None:
    """Of processes launched together most fail alike, and the launcher ends the rest when one has failed: a machine's
    others wait for that, and speak only of what they alone have met."""
    if place().local:
        time.sleep(PATIENCE)


def _usage(error: TyperException) -> str:
    # typer's own words, in the form of the other errors and without the name of a class of its validator.
    text = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    return text[:1].lower() + text[1:]


def _os_cause(error: OSError) -> str:
    names = ", ".join(str(n) for n in (error.filename, error.filename2) if n is not None)
    what = error.strerror or str(error) or type(error).__name__
    return f"{names}: {what}" if names else what


def _os_hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on that disk, or name another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "check who may read and write there, or name another place"
    return "check the disk and the path; EDGE_DEBUG=1 shows where it happened"
