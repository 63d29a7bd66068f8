"""edge chat: talk to a bundle, a variant, or anybody's GGUF file or onnxruntime-genai folder."""

from __future__ import annotations

import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.errors import BundleError, UnsupportedError
from edge.cli import console

if TYPE_CHECKING:
    from edge.chat.locate import Chosen
    from edge.chat.session import Session

MAX_PIPE = 64 << 20
"""Bytes of piped text: far more than any context holds, and still an answer instead of a full memory."""
_PATIENCE_S = 2.0


def chat(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [PROMPT]",
            help="A question. If the first word names a model (a path, or a name under ./bundles) it is the "
            "model; without one, the newest bundle under ./bundles answers.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Bundle, GGUF file or genai folder, or a bundle's name."),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which variant of the bundle.")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Answer with this adapter of the bundle.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Show an image with the prompt; repeat for several."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Play a recording with the prompt; repeat for several."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="System message, or a file that holds it.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Only the K likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens that make up this share.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Only tokens this likely against the likeliest.")] = 0.0,
    repeat_penalty: Annotated[float, typer.Option(help="Over 1: avoid recent tokens.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer. Default: a random one.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", help="Longest answer.")] = 1024,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; can be repeated.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context length in tokens.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: every core.")] = None,
    template: Annotated[
        bool, typer.Option("--template/--no-template", help="Use the model's chat template.")
    ] = True,
    prefix_cache: Annotated[
        bool | None,
        typer.Option(
            "--prefix-cache/--no-prefix-cache",
            show_default=False,
            help="Keep on disk what the engine makes of a long system message. Default: where it can.",
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A smaller model of the same tokenizer guesses tokens ahead."),
    ] = None,
    prompt_lookup: Annotated[
        int | None,
        typer.Option(
            metavar="[N]", min=1, max=64, help="Guess up to N (8) tokens ahead from what was said before."
        ),
    ] = None,
    inexact: Annotated[
        bool,
        typer.Option("--inexact", help="Guess even where the engine then rounds otherwise: other near ties."),
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Times and speeds on stderr afterwards.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Chat with a bundle, a GGUF file or an ONNX folder.

    One answer to PROMPT, or a conversation when there is none. Text that is piped in is the prompt, or
    follows it. The answer goes to stdout, everything else to stderr.
    """
    from edge import runtimes
    from edge.chat import faster, locate
    from edge.chat.sampling import Sampling
    from edge.chat.session import Session, Settings
    from edge.targets.settings import settings_for

    named, prompt = _split(words or [], model)
    prompt = _with_pipe(prompt)
    if prompt is None and json_output:
        raise UnsupportedError("--json needs a prompt", hint='edge chat --json "What is an edge device?"')
    sampling = Sampling(temperature, top_k, top_p, min_p, repeat_penalty)
    settings = Settings(sampling, max_tokens=max_tokens, stop=tuple(stop or ()))
    if seed is not None:
        settings = Settings(sampling, seed=seed, max_tokens=max_tokens, stop=tuple(stop or ()))
    chosen = locate.choose(named or locate.latest(), variant)
    runtime = runtimes.open_runtime(
        chosen.path,
        context_length=context or chosen.context_length,
        threads=threads,
        settings=settings_for(chosen.path, chosen.targets),
    )
    guesses = None
    try:
        if isinstance(runtime, runtimes.Perceiving) and (draft or prompt_lookup):
            raise UnsupportedError(
                "guessing tokens ahead is for models of text alone",
                hint="leave --draft and --prompt-lookup away",
            )
        guesses = faster.Guesses.choose(runtime, draft, prompt_lookup, threads=threads)
        session = Session(
            runtime,
            settings=settings,
            system=faster.system_text(system),
            use_template=template,
            note=console.say,
            prefix=faster.prefix_cache(runtime, chosen, prefix_cache, console.say),
            check_adapter=chosen.check_adapter,
            speculation=guesses.speculation(runtime, console.say, exact=not inexact) if guesses else None,
        )
        if adapter is not None:
            session.use_adapter(adapter)
        for kind, files in (("image", image), ("audio", audio)):
            for file in files or ():
                session.attach(kind, file)
        if prompt is None:
            _converse(session, chosen)
        else:
            _answer(session, chosen, prompt, json_output)
        if stats and session.last:
            from edge.chat.commands import stats as numbers

            console.say(numbers(session.last, runtime.context_length))
    finally:
        runtime.close()
        if guesses:
            guesses.close()


def _split(words: list[str], model: str | None) -> tuple[Path | None, str | None]:
    """(model, prompt) of the words. One word, one rule: if it names a model it is the model."""
    from edge.chat import locate

    path = None
    if model is None and words:
        path = locate.find_model(words[0])
        words = words[1:] if path else words
    elif model is not None:
        path = locate.find_model(model)
        if path is None:
            names = ", ".join(locate.names())
            raise BundleError(
                f"'{model}' is no bundle, GGUF file or genai folder",
                hint=f"under ./bundles: {names}" if names else "edge convert makes a bundle",
            )
    if len(words) > 1:
        raise UnsupportedError(
            f"'{words[0]}' names no model, and a prompt is one argument",
            hint='edge chat [MODEL] "the whole question in quotes"',
        )
    return path, words[0] if words else None


def _with_pipe(prompt: str | None) -> str | None:
    """The prompt joined with the text that is piped in, if any."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    try:
        if not select.select([sys.stdin], [], [], _PATIENCE_S)[0]:
            console.say("reading standard input; Ctrl-D ends it, < /dev/null leaves it out")
    except (OSError, ValueError):  # a file on Windows, or no descriptor: reading it does not wait
        pass
    data = sys.stdin.buffer.read(MAX_PIPE + 1)
    if len(data) > MAX_PIPE:
        raise UnsupportedError(f"more than {MAX_PIPE >> 20} MiB were piped in", hint="pipe less text")
    text = data.decode("utf-8", "replace").strip()
    if "\ufffd" in text and b"\xef\xbf\xbd" not in data:
        console.say("the piped text is not all UTF-8: wrong bytes were replaced")
    parts = [part for part in (prompt, text) if part]
    if not parts:
        raise UnsupportedError("there is no prompt: standard input is empty", hint='edge chat "a question"')
    return "\n\n".join(parts)


def _answer(session: Session, chosen: Chosen, prompt: str, json_output: bool) -> None:
    from edge.chat import repl

    if not json_output:
        for piece in session.ask(prompt):
            repl.write(piece)
        repl.write("\n")
        return
    text = "".join(session.ask(prompt))
    last = session.last
    assert last is not None
    console.write_json(
        {
            "answer": text,
            "model": chosen.label,
            "runtime": session.runtime.name,
            **last.to_data(),
            "context_length": session.runtime.context_length,
        }
    )


def _converse(session: Session, chosen: Chosen) -> None:
    from edge.chat import repl

    console.say(f"{chosen.label} on {session.runtime.name}, context {session.runtime.context_length} tokens")
    console.say("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves")
    repl.loop(session, repl.LineReader())
