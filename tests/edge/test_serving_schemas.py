"""Schemas that are asked for as strict: a keyword that nothing enforces is refused, by its name and place."""

from __future__ import annotations

from typing import Any

import pytest

from edge.serving.errors import ApiError
from edge.serving.requests import Question, read_chat


def chat(**fields: Any) -> Question:
    return read_chat({"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def test_a_strict_schema_has_only_keywords_that_are_kept() -> None:
    sound = {
        "type": "object",
        "properties": {
            "maxlength": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}
        },
        "required": ["maxlength"],
        "additionalProperties": False,
        "$defs": {"a": {"type": "string", "maxLength": 3, "title": "A"}},
    }
    assert chat(response_format=strict(sound)).shape is not None
    for wrong, says in (
        ({"maxlength": 3}, r"schema: 'maxlength' cannot be kept"),
        (
            {"properties": {"a": {"items": {"uniqueItems": True}}}},
            r"schema\.properties\.a\.items: 'uniqueItems'",
        ),
        ({"anyOf": [{}, {"not": {}}]}, r"schema\.anyOf\[1\]: 'not'"),
    ):
        with pytest.raises(ApiError, match=says) as error:
            chat(response_format=strict(wrong))
        assert error.value.code == "invalid_schema"
        tool = {"name": "f", "strict": True, "parameters": wrong}
        with pytest.raises(ApiError, match="and the schema is strict"):
            chat(tools=[{"type": "function", "function": tool}])
        # JSON Schema passes over what it does not know; llguidance tells what it lacks.
        form = {"type": "json_schema", "json_schema": {"schema": wrong}}
        assert chat(response_format=form).shape is not None
