"""The embedded default behind OpenAI's interface. Needs the model: cached, or from the package index (93 MB)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from tests.edge.serving_process import serving


@pytest.mark.slow
def test_it_knows_the_capital_of_france(tmp_path: Path) -> None:
    bundle = tmp_path / "default"
    convert(plan(ConvertRequest("smollm2-135m-instruct", ("cpu",), output=bundle, proof=False)), Silent())
    with serving(bundle, "--context", "1024", log=tmp_path / "log") as server:
        client = server.client()
        said = client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "The capital of France is"}],
            max_tokens=16,
            temperature=0,
            stream=True,
        )
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in said)
        assert answer.startswith("The capital of France is Paris")
        as_json = client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Which city is the capital of France? Answer as JSON."}],
            max_tokens=30,
            temperature=0,
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "city",
                    "schema": {
                        "type": "object",
                        "properties": {"city": {"type": "string", "maxLength": 20}},
                        "required": ["city"],
                        "additionalProperties": False,
                    },
                },
            },
        )
        assert "Paris" in json.loads(as_json.choices[0].message.content or "")["city"]
