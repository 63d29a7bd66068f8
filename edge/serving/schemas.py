"""JSON schemas that are asked for as strict: a keyword that nothing would enforce is refused by its name.

llguidance refuses the keywords that it knows and lacks; JSON Schema has it pass over all others, `maxlength` too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge.serving.errors import ApiError

_OF_NAMES = {"properties", "patternProperties", "$defs", "definitions"}
_OF_ONE = {"items", "additionalItems", "additionalProperties"}
_OF_MANY = {"prefixItems", "items", "anyOf", "oneOf", "allOf"}
_CHECKED = {
    "type", "enum", "const", "$ref", "required", "minProperties", "maxProperties", "minItems", "maxItems", "minLength",
    "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
_WORDS = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id",
    "$anchor",
}  # fmt: skip
"""They restrict nothing."""
_KNOWN = _OF_NAMES | _OF_ONE | _OF_MANY | _CHECKED | _WORDS


def check_strict(schema: Any, where: str) -> None:
    """where: the schema's place in the request. Raises ApiError."""
    todo = [(schema, where)]
    while todo:
        found, place = todo.pop()
        if not isinstance(found, dict):
            continue  # true and false are schemas too; what is none, llguidance refuses
        if unknown := sorted(set(found) - _KNOWN):
            raise ApiError(
                400,
                f"{place}: '{unknown[0]}' cannot be kept, and the schema is strict",
                param=where,
                code="invalid_schema",
            )
        todo += _inner(found, place)


def _inner(schema: dict[str, Any], place: str) -> Iterator[tuple[Any, str]]:
    for key, value in schema.items():
        if key in _OF_NAMES and isinstance(value, dict):
            yield from ((each, f"{place}.{key}.{name}") for name, each in value.items())
        elif key in _OF_MANY and isinstance(value, list):
            yield from ((each, f"{place}.{key}[{i}]") for i, each in enumerate(value))
        elif key in _OF_ONE:
            yield value, f"{place}.{key}"
