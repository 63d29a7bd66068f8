"""What clients may ask, what is refused and why: the readers of requests, without a server."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serving.errors import ApiError
from edge.serving.messages import Said, Upload
from edge.serving.requests import Question, read_chat, read_completion
from edge.serving.tools import may_be_call, parse_call

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> Question:
    return read_chat({"model": "m", "messages": HELLO} | fields)


def complete(**fields: Any) -> Question:
    return read_completion({"model": "m", "prompt": "Hello"} | fields)


def test_defaults_are_those_of_openai() -> None:
    asked = chat()
    assert (asked.sampling.temperature, asked.sampling.top_p) == (1, 1)
    assert (asked.max_tokens, asked.stop, asked.stream, asked.top_logprobs) == (None, (), False, None)
    assert complete().max_tokens == 16
    assert chat(seed=1) == chat(
        seed=1, user="me", metadata={}, store=False, n=1, best_of=1, frequency_penalty=0.0
    )


def test_what_is_asked_arrives() -> None:
    asked = chat(
        max_tokens=3, max_completion_tokens=4, temperature=0, top_p=0.5, top_k=7, seed=-1, stop=["a", "b"],
        stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    assert asked.max_tokens == 4
    assert (asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k) == (0, 0.5, 7)
    assert asked.seed >= 0
    assert (asked.n, chat(n=3).n) == (1, 3)
    assert (asked.stop, asked.stream, asked.stream_usage, asked.top_logprobs) == (("a", "b"), True, True, 2)
    assert complete(prompt=[1, 2]).prompt == (1, 2)
    assert complete(prompt=["only"]).prompt == "only"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "root", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"n": 17}, "n"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"temprature": 1}, "temprature"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"tools": [{"type": "web"}]}, "tools[0].type"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{**WEATHER, "colour": 1}]}, "tools[0].colour"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as error:
        chat(**fields)
    assert error.value.status == 400
    assert error.value.param == param
    assert error.value.to_data()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields", [{"prompt": ["a", "b"]}, {"prompt": [1, "b"]}, {"prompt": ""}, {"prompt": None}, {"echo": True},
               {"suffix": "x"}, {"best_of": 2}, {"logprobs": 6}],
)  # fmt: skip
def test_of_completions_too(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as error:
        complete(**fields)
    assert error.value.param == next(iter(fields))


def image(url: str) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def test_an_image_comes_as_data_and_nothing_is_fetched() -> None:
    assert chat(messages=image("data:image/png;base64,aGk=")).said == (
        Said("user", "What is it?", (Upload("image", b"hi"),)),
    )
    for url in (
        "https://example.org/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,?",
        "data:text/html,x",
    ):
        with pytest.raises(ApiError, match="url is no"):
            chat(messages=image(url))


def test_a_call_and_its_result_are_told_in_any_templates_words() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    said = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        tools=[WEATHER],
    ).said
    assert [each.role for each in said] == ["system", "user", "assistant", "user"]
    assert said[0].text.startswith("Be brief.\n\nYou can call")
    assert json.loads(said[2].text) == {"name": "weather", "arguments": {"city": "Rome"}}
    assert said[3].text == "weather returned: sunny"
    assert "weather" not in chat(tools=[WEATHER], tool_choice="none").said[0].text


def test_only_a_whole_call_is_one() -> None:
    text = ' {"name": "f", "arguments": {"a": [1, "é"]}}'
    call = parse_call(text)
    assert call is not None
    assert call["function"] == {"name": "f", "arguments": '{"a": [1, "é"]}'}
    assert all(may_be_call(text[:cut]) and parse_call(text[:cut]) is None for cut in range(2, len(text)))
    assert parse_call("Hello {") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "tools",
        "tool_choice",
        "response_format",
        "stop",
        "logprobs",
        "stream_options",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(fields, json_values) | json_values, st.booleans())
def test_no_body_breaks_a_reader(data: Any, whole: bool) -> None:
    if whole and isinstance(data, dict):
        data = {"model": "m", "messages": HELLO, "prompt": "x"} | data
    for read in (read_chat, read_completion):
        with suppress(ApiError):
            assert isinstance(read(data), Question)
