"""Functions that a model may call, and what shape an answer must have: as words for the model and as a grammar.

The grammar is Lark with JSON schemas in it, as llguidance reads it
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from edge.serving.errors import ApiError
from edge.serving.fields import Fields
from edge.serving.schemas import check_strict

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Without it a small model may write blanks until its tokens run out."""
_TEXT = "text: /([^{ ](.|\\n)*)?/\n"


@dataclass(frozen=True)
class Shape:
    """How an answer must look. instruction: what the model is told of it. calls: whether it may be a function call."""

    grammar: str
    instruction: str | None = None
    calls: bool = False


def read_shape(fields: Fields) -> Shape | None:
    """Of `tools`, `tool_choice` and `response_format`; None when all text is right. Raises ApiError."""
    tools = [_function(tool, f"tools[{i}]") for i, tool in enumerate(fields.items("tools"))]
    chosen = fields.take("tool_choice")
    form = fields.take("response_format")
    shape = _format(Fields(form, "response_format")) if form is not None else None
    if not tools or chosen == "none":
        if not tools and chosen not in (None, "none", "auto"):
            raise fields.wrong("tool_choice", "needs tools")
        return shape
    if shape:
        raise fields.wrong("response_format", "and tools exclude each other here")
    if isinstance(chosen, dict):
        name = Fields(chosen.get("function"), "tool_choice.function").needed("name")
        callable_ = [tool for tool in tools if tool["name"] == name]
        if not callable_:
            raise fields.wrong("tool_choice", f"names '{name}', which is not among the tools")
    elif chosen in (None, "auto", "required"):
        callable_ = tools
    else:
        raise fields.wrong("tool_choice", "is neither none, auto, required nor a function")
    call = "call: " + " | ".join(f"%json {json.dumps(_call(tool))}" for tool in callable_) + "\n"
    free = chosen in (None, "auto")
    grammar = f'start: " "? (call | text)\n{_TEXT}{call}' if free else f'start: " "? call\n{call}'
    return Shape(grammar, _instruction(tools), calls=True)


def parse_call(text: str) -> dict[str, Any] | None:
    """The function call that an answer is, as OpenAI writes it; None for other text, and for a call that was cut."""
    if not may_be_call(text):
        return None
    try:
        call = json.loads(text)
    except ValueError:
        return None
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def may_be_call(text: str) -> bool:
    """Whether the answer that starts like this is a call: the grammar lets no text begin so."""
    return text.lstrip(" ").startswith("{")


def _function(data: Any, where: str) -> dict[str, Any]:
    tool = Fields(data, where)
    if tool.take("type") != "function":
        raise tool.wrong("type", "is not 'function'")
    function = Fields(tool.take("function"), f"{where}.function")
    made = {
        "name": function.needed("name"),
        "description": function.text("description") or "",
        "parameters": function.take("parameters") or {"type": "object", "properties": {}},
    }
    if not isinstance(made["parameters"], dict):
        raise function.wrong("parameters", "is no JSON schema")
    if function.flag("strict"):
        check_strict(made["parameters"], f"{where}.function.parameters")
    function.finish()
    tool.finish()
    return made


def _instruction(tools: list[dict[str, Any]]) -> str:
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "You can call these functions, given as JSON with a JSON schema of their parameters:\n"
        f"{listed}\n"
        'To call one, answer with nothing but {"name": ..., "arguments": {...}}.'
    )


def _call(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call. What `$ref` points to stays at the top, where it is looked for."""
    arguments = dict(tool["parameters"])
    shared = {key: arguments.pop(key) for key in ("$defs", "definitions") if key in arguments}
    arguments.pop("$schema", None)
    return {
        "type": "object",
        "properties": {"name": {"const": tool["name"]}, "arguments": {"type": "object"} | arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        "x-guidance": _COMPACT,
        **shared,
    }


def _format(fields: Fields) -> Shape | None:
    kind = fields.needed("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema: Any = {"type": "object"}
    elif kind == "json_schema":
        asked = Fields(fields.take("json_schema"), "response_format.json_schema")
        schema = asked.take("schema")
        if not isinstance(schema, dict):
            raise ApiError(400, "response_format.json_schema.schema is missing", param="response_format")
        if asked.flag("strict"):
            check_strict(schema, "response_format.json_schema.schema")
        asked.finish(["name", "description"])
    else:
        raise fields.wrong("type", "is neither text, json_object nor json_schema")
    return Shape(f'start: " "? answer\nanswer: %json {json.dumps(schema | {"x-guidance": _COMPACT})}\n')
