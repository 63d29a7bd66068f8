"""Several answers to one prompt, which is read once: the first is the one that is given alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from tests.edge.serving_process import ServerProcess, serving

Tiny = Callable[..., Path]
COLOURS: Any = {
    "type": "json_schema",
    "json_schema": {"name": "c", "schema": {"enum": ["red", "blue", "green"]}},
}


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("several") / "tiny"
    request = ConvertRequest(
        str(tiny("phi4-mini")), ("cpu", "android"), output=output, precision="f16", proof=False
    )
    convert(plan(request), Silent())
    return output


@pytest.fixture(scope="module", params=["onnx-f16", "gguf-f16"])
def server(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    with serving(bundle, "--variant", request.param, "--context", "512", log=log) as process:
        yield process


def ask(server: ServerProcess, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": "Tell me of größe"}]
    asked: dict[str, Any] = {"model": "tiny", "messages": messages, "seed": 5, "max_tokens": 12}
    return server.client().chat.completions.create(**asked | options)


def texts(answer: Any) -> list[str]:
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.message.content for choice in answer.choices]


def test_the_first_is_the_one_given_alone_and_the_others_differ(server: ServerProcess) -> None:
    alone = ask(server)
    found = ask(server, n=4)
    assert texts(found)[0] == alone.choices[0].message.content
    assert len(set(texts(found))) == 4
    assert texts(ask(server, n=4)) == texts(found)
    assert len(set(texts(ask(server, n=3, temperature=0)))) == 1
    # The prompt was read once.
    assert found.usage.prompt_tokens == alone.usage.prompt_tokens
    assert 4 <= found.usage.completion_tokens <= 4 * 12
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    last = server.log.splitlines()[-1]
    assert last.count("max_tokens") + last.count("stop_token") == 3
    assert ask(server).choices[0].message.content == alone.choices[0].message.content


def test_a_stream_tells_each_piece_its_index(server: ServerProcess) -> None:
    whole = ask(server, n=3, logprobs=True, top_logprobs=1)
    chunks = list(
        ask(server, n=3, logprobs=True, top_logprobs=1, stream=True, stream_options={"include_usage": True})
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in chunks[:-1] if chunk.choices[0].index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(each.delta.content or "" for each in mine) == choice.message.content
        assert [each.finish_reason for each in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        tokens = [entry.bytes for each in mine if each.logprobs for entry in each.logprobs.content]
        assert tokens == [entry.bytes for entry in choice.logprobs.content]


def test_shapes_and_completions_come_severalfold_too(server: ServerProcess) -> None:
    found = ask(server, n=6, response_format=COLOURS, max_tokens=40)
    assert set(texts(found)) <= {'"red"', '"blue"', '"green"'}
    assert {choice.finish_reason for choice in found.choices} == {"stop"}
    asked: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 6, "seed": 1}
    several = server.client().completions.create(**asked, n=2, best_of=2)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == server.client().completions.create(**asked).choices[0].text
    assert several.choices[0].text != several.choices[1].text
    pieces = list(server.client().completions.create(**asked, n=2, stream=True))
    for choice in several.choices:
        assert "".join(p.choices[0].text for p in pieces if p.choices[0].index == choice.index) == choice.text


def test_more_than_are_told_are_not_made(server: ServerProcess) -> None:
    for options, says in (
        ({"n": 17}, "n is no whole number from 1 to 16"),
        ({"n": 0}, "n is no whole number"),
        ({"n": 2, "extra_body": {"best_of": 3}}, r"best_of is not n \(2\): this server tells every answer"),
        ({"extra_body": {"best_of": 2}}, r"best_of is not n \(1\)"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            ask(server, **options)
