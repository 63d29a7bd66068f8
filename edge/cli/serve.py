"""edge serve: a model behind OpenAI's HTTP interface, for programs that already speak it."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from converters.errors import BundleError, UnsupportedError
from edge.cli import console
from edge.extras import require

if TYPE_CHECKING:
    import socket

    from edge.serving.encoder import ServedEncoder
    from edge.serving.model import Served


def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Bundle, GGUF file or genai folder, or a bundle's name.")
    ],
    variant: Annotated[str | None, typer.Option(help="Which variant of the bundle.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Default: this computer only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="EDGE_SERVE_TOKEN",
            show_envvar=True,
            help="What clients must give as their API key. Made and shown where other computers can connect.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model. Default: its own.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context length in tokens.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: every core.")] = None,
    queue: Annotated[
        int, typer.Option(min=0, help="How many requests may wait; more are told to come back.")
    ] = 16,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that answers have to finish after Ctrl-C or SIGTERM.")
    ] = 10,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin ask; can be repeated."),
    ] = None,
    json_output: Annotated[
        bool,
        typer.Option("--json", help="Tell readiness as one line of JSON, with the models and the token."),
    ] = False,
) -> None:
    """Serve a model to programs that speak OpenAI's HTTP interface.

    A model that writes answers chats and completions; an encoder with sentence vectors gives embeddings. Once it is
    ready its URL is a line on stdout; answers and refusals are a line each on stderr. Ctrl-C or SIGTERM ends it.
    """
    require("edge serve", "serve", "llguidance", "starlette", "uvicorn")
    from edge.serving import app, server
    from edge.serving.events import Event
    from edge.serving.worker import Worker

    if token == "":
        raise UnsupportedError("the token is empty", hint="leave --token out, or give one")
    with server.bind(host, port) as bound:
        made = secrets.token_urlsafe(24) if token is None and not server.is_loopback(bound) else None
        served = _open(model, variant, name, context, threads)
        if "*" in (cors or ()) and not (token or made):
            console.say("any web page that is open on this computer can ask; --token KEY keeps strangers out")
        line: Worker[Event] = Worker(queue)
        try:
            web = app.make_app(served, line, token=token or made, origins=cors or (), log=_log)
            server.Server(
                web,
                line,
                grace=grace,
                ready=lambda: _ready(served, bound, made, json_output),
                log=console.say,
            ).run([bound])
        finally:
            line.close()
            served.close()
    console.say("stopped")


def _open(
    word: str, variant: str | None, name: str | None, context: int | None, threads: int | None
) -> Served | ServedEncoder:
    from edge.bundle import is_bundle, load
    from edge.chat import locate

    path = locate.find_model(word)
    if path is None:
        raise BundleError(
            f"'{word}' is no bundle, GGUF file or genai folder", hint="edge convert makes a bundle"
        )
    name = name or path.resolve().name
    if is_bundle(path) and load(path).encodes:
        from edge.encoder.vectors import open_embedder
        from edge.serving.encoder import ServedEncoder

        embedder = open_embedder(path, variant, context, threads)
        console.say(f"loaded {embedder.label}")
        return ServedEncoder(name, embedder, int(path.stat().st_mtime))

    from edge import runtimes
    from edge.chat import faster
    from edge.serving.model import Served
    from edge.targets.settings import settings_for

    chosen = locate.choose(path, variant)
    console.say(f"loading {chosen.label}")
    runtime = runtimes.open_runtime(
        chosen.path,
        context_length=context or chosen.context_length,
        threads=threads,
        settings=settings_for(chosen.path, chosen.targets),
    )
    # Without a store: what clients say is not kept on disk.
    prefix = faster.prefix_cache(runtime, chosen, False, console.say)
    return Served(name, runtime, chosen, prefix, int(chosen.path.stat().st_mtime))


def _ready(served: Served | ServedEncoder, bound: socket.socket, made: str | None, json_output: bool) -> None:
    """made: the token that nobody knows yet."""
    from edge.serving import server

    url = server.url(bound)
    name, context = served.names[0], served.context_length
    told = {
        "url": url,
        "model": name,
        "models": served.names,
        "token": made,
        "context_length": context,
        "dimensions": served.dimensions,
    }
    print(json.dumps(told) if json_output else url, flush=True)
    console.say(f"{name} on {served.engine} at {url}, context {context}: {' '.join(served.paths)}")
    if made and not json_output:
        console.say(f"the API key is {made}")
    if not server.is_loopback(bound):
        console.say("other computers can connect; what they send and get is not encrypted")


def _log(line: str) -> None:
    console.say(console.clean(line))
