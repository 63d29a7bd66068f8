"""`edge serve` as OpenAI's own client meets it: a real process, tiny random models, both engines."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from tests.adapters import write_adapter
from tests.edge.serving_process import EDGE, ServerProcess, environment, serving

Tiny = Callable[..., Path]
QUESTION: Any = [{"role": "user", "content": "Tell me of 🙂 and größe"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "sizes": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        "name": {"type": "string", "maxLength": 5},
    },
    "required": ["colour", "sizes", "name"], "additionalProperties": False,
}  # fmt: skip
CITY = {"enum": ["Paris", "Rome"]}
PLACE = {
    "type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
    "additionalProperties": False, "$defs": {"city": CITY},
}  # fmt: skip
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": PLACE, "strict": True},
}


@pytest.fixture(scope="module")
def bundle(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    adapter = write_adapter(tiny("phi4-mini"), root / "loud", seed=1, r=4)
    request = ConvertRequest(
        str(tiny("phi4-mini")), ("cpu", "android"), output=root / "tiny", precision="f16", proof=False,
        adapters=(f"loud={adapter}",),
    )  # fmt: skip
    convert(plan(request), Silent())
    return root / "tiny"


@pytest.fixture(scope="module", params=["onnx-f16", "gguf-f16"])
def server(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("log") / "stderr"
    with serving(bundle, "--variant", request.param, "--context", "1024", log=log) as process:
        process.variant = request.param
        yield process


def ask(server: ServerProcess, **options: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "seed": 5, "max_tokens": 24} | options
    return server.client().chat.completions.create(**asked)


def text_of(chunks: Any) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_pieces_join_to_the_whole_answer(server: ServerProcess) -> None:
    """Also of bytes that are no UTF-8, as a random model writes them: no piece ends inside a character."""
    for options in ({"temperature": 0}, {"temperature": 1}, {"temperature": 1, "stop": ["e", "a"]}):
        whole = ask(server, **options)
        chunks = list(ask(server, **options, stream=True, stream_options={"include_usage": True}))
        assert text_of(chunks) == whole.choices[0].message.content
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert not set("ea") & set(whole.choices[0].message.content)
    assert whole.usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 1


@pytest.mark.parametrize("temperature", ["0", "0.9"])
def test_it_says_what_edge_chat_says(server: ServerProcess, bundle: Path, temperature: str) -> None:
    options = ["--variant", server.variant, "--seed", "5", "-n", "24", "--threads", "1", "--context", "1024"]
    command = [*EDGE, "chat", "-m", str(bundle), *options, "--temperature", temperature, "--json"]
    done = subprocess.run(
        [*command, QUESTION[0]["content"]], capture_output=True, stdin=subprocess.DEVNULL, env=environment()
    )
    said = json.loads(done.stdout)
    answer = ask(server, temperature=float(temperature))
    assert answer.choices[0].message.content == said["answer"]
    assert answer.usage.completion_tokens == said["answer_tokens"]


def test_a_completion_goes_on_and_logprobs_are_those_of_its_tokens(server: ServerProcess) -> None:
    client = server.client()
    asked: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=3)
    pieces = client.completions.create(**asked, stream=True)
    assert "".join(p.choices[0].text for p in pieces) == whole.choices[0].text
    scored = whole.choices[0].logprobs
    assert len(scored.tokens) == whole.usage.completion_tokens
    # Greedy: the token that was taken is the likeliest one.
    for logprob, top in zip(scored.token_logprobs, scored.top_logprobs, strict=True):
        assert 0 > logprob == pytest.approx(max(top.values()))
    entries = ask(server, logprobs=True, top_logprobs=2, temperature=0).choices[0].logprobs.content
    assert all(e.logprob == e.top_logprobs[0].logprob >= e.top_logprobs[1].logprob for e in entries)
    streamed = ask(server, logprobs=True, top_logprobs=2, temperature=0, stream=True)
    pieces = [e for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [e.bytes for e in pieces] == [e.bytes for e in entries]
    # The prompt is cached by now but for its last token, and engines round a token read alone otherwise (1e-6).
    assert [e.logprob for e in pieces] == pytest.approx([e.logprob for e in entries], abs=1e-4)


def test_json_has_the_shape_that_was_asked(server: ServerProcess) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    for seed in range(3):
        answer = ask(server, response_format=form, seed=seed, max_tokens=200)
        assert answer.choices[0].finish_reason == "stop"
        jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    free = ask(server, response_format={"type": "json_object"}).choices[0].message.content
    assert free.startswith("{")
    with pytest.raises(openai.BadRequestError, match="schema cannot be used") as error:
        ask(server, response_format={"type": "json_schema", "json_schema": {"schema": {"type": "frob"}}})
    assert error.value.code == "invalid_schema"


def test_a_function_call_parses(server: ServerProcess) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = ask(server, tools=[WEATHER], tool_choice=choice, max_tokens=100)
        assert answer.choices[0].finish_reason == "tool_calls"
        call = answer.choices[0].message.tool_calls[0].function
        assert call.name == "weather"
        assert json.loads(call.arguments)["city"] in CITY["enum"]
    *_, piece, last = ask(server, tools=[WEATHER], tool_choice="required", max_tokens=100, stream=True)
    assert json.loads(piece.choices[0].delta.tool_calls[0].function.arguments)["city"] in CITY["enum"]
    assert last.choices[0].finish_reason == "tool_calls"
    # Free to choose, a random model writes text.
    whole = ask(server, tools=[WEATHER])
    assert whole.choices[0].message.tool_calls is None
    assert text_of(ask(server, tools=[WEATHER], stream=True)) == whole.choices[0].message.content


def test_two_clients_at_once_get_what_each_gets_alone(server: ServerProcess) -> None:
    alone = [ask(server, seed=seed).choices[0].message.content for seed in (1, 2, 3, 4)]
    together: dict[int, str] = {}

    def one(seed: int) -> None:
        together[seed] = text_of(ask(server, seed=seed, stream=True))

    threads = [threading.Thread(target=one, args=[seed]) for seed in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in (1, 2, 3, 4)] == alone
    assert len(set(alone)) == 4


def test_an_adapter_is_a_model_of_its_own(server: ServerProcess) -> None:
    assert [model.id for model in server.client().models.list()] == ["tiny", "tiny:loud"]
    assert server.client().models.retrieve("tiny:loud").owned_by == "edge"
    plain, loud, again = (
        ask(server, model=name, temperature=0).choices[0].message.content
        for name in ("tiny", "tiny:loud", "tiny")
    )
    assert plain == again != loud
    with pytest.raises(openai.NotFoundError, match="there is tiny, tiny:loud"):
        ask(server, model="tiny:quiet")


def test_a_prompt_that_does_not_fit_is_told_in_openais_words(server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024 tokens") as error:
        ask(server, messages=[{"role": "user", "content": "word " * 2000}])
    assert error.value.code == "context_length_exceeded"
    full = ask(server, max_tokens=5000, temperature=0.5)
    assert full.usage.total_tokens == 1024 or full.choices[0].finish_reason == "stop"


def test_what_it_cannot_do_is_a_clear_refusal(server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="gives no embeddings"):
        server.client().embeddings.create(model="tiny", input="x")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    with pytest.raises(openai.BadRequestError, match="takes no image"):
        ask(server, messages=[{"role": "user", "content": [image]}])
    assert server.get("/nothing").json()["error"]["type"] == "invalid_request_error"
    assert server.get("/completions").status_code == 405
    with pytest.raises(openai.BadRequestError, match="no tokens of this model"):
        server.client().completions.create(model="tiny", prompt=[1, 1 << 30])
