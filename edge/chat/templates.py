"""Chat templates: untrusted Jinja from a model's files, rendered in a sandbox with bounded work and memory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from converters.errors import UnsupportedError

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": text}, and where a message has some "media": a list of
{"kind": "image" | "audio", "path": file}, which stand before its text."""

MAX_SOURCE = 1 << 20
MAX_OUTPUT = 64 << 20
MAX_STEPS = 200_000
MAX_MEMORY = 512 << 20
TODAY = date(2025, 1, 1)
"""What `strftime_now` tells templates that print a date: fixed, so that a question is always the same prompt."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what to train on in Hugging Face templates: keep the body."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses arithmetic whose numbers explode: it runs for hours in a few bytes of memory."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("the operator ** is not allowed")
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 64:
            raise SecurityError("a product over 64 bits")
        return left * right


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: object) -> None:
    raise TemplateError(str(message))


class ChatTemplate:
    """A compiled template. Raises UnsupportedError when it does not parse, or is larger than MAX_SOURCE."""

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            raise _refused(f"{len(source)} characters, more than {MAX_SOURCE}")
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._steps = 0
        environment = _Sandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=TODAY.strftime, _step=self._step)
        try:
            tree = environment.parse(source)
            blocks: list[nodes.For | nodes.Macro] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro)]
            for block in blocks:
                call = nodes.Call(nodes.Name("_step", "load"), [], [], None, None)
                block.body.insert(0, nodes.ExprStmt(call))
            with _memory_limit(MAX_MEMORY):  # compiling computes constant expressions
                self._template = environment.from_string(tree)
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise _refused(error) from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt text. Raises UnsupportedError when the template refuses, or does too much."""
        self._steps = 0
        parts: list[str] = []
        size = 0
        try:
            with _memory_limit(MAX_MEMORY):
                for part in self._template.generate(
                    messages=[{"role": m["role"], "content": m["content"]} for m in messages],
                    add_generation_prompt=add_generation_prompt,
                    **self._tokens,
                ):
                    size += len(part)
                    if size > MAX_OUTPUT:
                        raise SecurityError(f"more than {MAX_OUTPUT} characters of output")
                    parts.append(part)
        except MemoryError:
            raise _refused(f"it takes more than {MAX_MEMORY >> 20} MiB of memory") from None
        except (TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise _refused(error) from None
        return "".join(parts)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SecurityError(f"more than {MAX_STEPS} steps")


@contextmanager
def _memory_limit(extra: int) -> Iterator[None]:
    """Let the process grow by at most `extra` bytes; only Linux enforces such a limit."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + extra
    for known in (soft, hard):
        limit = limit if known == resource.RLIM_INFINITY else min(limit, known)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _refused(cause: object) -> UnsupportedError:
    text = re.sub(r"\s+", " ", str(cause)).strip() or type(cause).__name__
    return UnsupportedError(
        f"the chat template cannot be used: {text}", hint="--no-template for plain completion"
    )
