"""`edge chat` and the engines behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edge.chat.templates as templates
import edge.cli.chat as command
from edge.chat import commands
from edge.chat.session import Session, Settings
from edge.chat.templates import ChatTemplate
from edge.runtimes import open_runtime
from edge.runtimes.isolated import teacher_forced
from tests.messages import World, case
from tests.messages.inspection import bundle


@case
def without_a_model(world: World) -> None:
    world.edge("chat", "hello", stdin=b"hello")
    world.edge("chat", "hello", "-m", "nowhere")
    world.edge("chat", "hello", "world")
    world.edge("chat")
    world.edge("chat", "--json", stdin=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "MAX_PIPE", 10)
        world.edge("chat", stdin=b"x" * 11)


@case
def options_out_of_range(world: World) -> None:
    bundle(world, "cpu")
    for option in (
        "--temperature=-1",
        "--top-p=0",
        "--max-tokens=0",
        "--seed=-1",
        "--variant=none",
        "--context=99999999",
    ):
        world.edge("chat", "hello", "-m", "b", option)
    world.edge("chat", "hello", "-m", "b/onnx-int4", "--variant=x")
    world.edge("chat", "word " * 5000, "-m", "b")


@case
def text_without_a_break(world: World) -> None:
    """phi4-mini's pre-tokenizer runs in std::regex, which such a run of letters would crash."""
    world.quietly("convert", world.tiny("phi4-mini"), "-t", "android", "-o", "b", "--no-proof")
    world.edge("chat", "x" * 9000, "-m", "b")


@case
def variants_that_nothing_runs(world: World) -> None:
    directory = bundle(world, "android")
    next(directory.glob("*.gguf")).unlink()
    world.edge("chat", "hello", "-m", "b")


@case
def commands_that_are_wrong(world: World) -> None:
    directory = bundle(world, "cpu")
    (world.path / "x.json").write_text("[1")
    runtime = open_runtime(directory / "onnx-int4")
    try:
        session = Session(runtime, settings=Settings(seed=1), use_template=False)
        for line in ("/nope", "/set colour red", "/set seed x", "/set top_p x", "/set seed -1",
                     "/save", "/save /no/where", "/load none.json", "/load x.json"):  # fmt: skip
            world.heading(line)
            world.call(commands.run, session, line)
        world.call(lambda: list(session.ask("")))
        world.call(runtime.append, list(range(5000)))
    finally:
        runtime.close()


@case
def templates_that_cannot_be_used(world: World) -> None:
    hello = [{"role": "user", "content": "hello"}]
    world.call(ChatTemplate, "{% if %}")
    world.call(ChatTemplate, "x" * (templates.MAX_SOURCE + 1))
    world.call(ChatTemplate("{{ raise_exception('no system message') }}").render, hello)
    world.call(
        ChatTemplate(
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
        ).render,
        hello,
    )
    world.call(ChatTemplate("{{ 'x' * 10 ** 10 }}").render, hello)


def _folder(world: World, file: str, change: Any) -> Path:
    """./b/onnx-int4 with one JSON file changed."""
    path = bundle(world, "cpu") / "onnx-int4" / file
    if callable(change):
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
    else:
        path.write_bytes(change)
    return path.parent


@case
def folder_with_a_wrong_config(world: World) -> None:
    folder = _folder(world, "genai_config.json", lambda c: c["model"].pop("vocab_size"))
    world.call(open_runtime, folder)
    for text in ("{", "[]"):
        (folder / "genai_config.json").write_text(text)
        world.call(open_runtime, folder)
    with (folder / "genai_config.json").open("r+b") as file:
        file.truncate(1 << 40)
    world.call(open_runtime, folder)


@case
def folder_with_a_wrong_tokenizer(world: World) -> None:
    folder = _folder(world, "tokenizer.json", b"{}")
    world.call(open_runtime, folder)
    (folder / "tokenizer.json").unlink()
    world.call(open_runtime, folder)


@case
def folder_with_a_wrong_decoder(world: World) -> None:
    def change(data: dict[str, Any]) -> None:
        data["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}

    world.call(open_runtime, _folder(world, "tokenizer.json", change))


@case
def folder_with_a_wrong_graph(world: World) -> None:
    world.call(open_runtime, _folder(world, "model.onnx", b"\x08\x01"))


@case
def what_no_engine_runs(world: World) -> None:
    world.call(open_runtime, Path("nowhere"))
    (world.path / "x.txt").write_text("hello")
    world.call(open_runtime, Path("x.txt"))
    (world.path / "x.gguf").write_bytes(b"GGUF" + bytes(20))
    world.call(open_runtime, Path("x.gguf"))
    world.call(teacher_forced, Path("x.gguf"), [1, 2], world.path, context_length=16)


@case
def contexts_that_do_not_fit(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    world.call(open_runtime, file.relative_to(world.path), context_length=1 << 30)
    runtime = open_runtime(file, context_length=256)
    try:
        world.call(runtime.append, [1] * 300)
    finally:
        runtime.close()


@case
def engine_is_not_installed(world: World) -> None:
    file = next(bundle(world, "android").glob("*.gguf"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "llama_cpp", None)
        world.call(open_runtime, file.relative_to(world.path))
