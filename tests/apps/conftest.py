"""The app's parts, built once a session for this computer, and a tiny model for them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.packaging import parts, turns
from edge.progress import Silent
from quant.recipe import Recipe
from tests import needs
from tests.apps import host_build
from tests.converters.gguf_support import write_gguf

Probe = Callable[..., dict[str, Any]]
CONTEXT = 32768
"""Of the model that leaves time."""
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def describe(gguf: Path, **changes: Any) -> dict[str, Any]:
    """A model.json for a file; its numbers are those of the tiny phi3."""
    data = gguf.read_bytes()
    return {
        "format": 1, "id": gguf.stem, "name": gguf.stem, "file": "model.gguf", "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(), "source": "random", "licence": "MIT", "architecture": "phi3",
        "precision": "int4", "parameters": 1, "context": 256, "kv_bytes_per_token": 1024, "work_bytes": 1 << 20,
        "stop": ["<|end|>"], "sampling": {}, "turns": turns.describe(TEMPLATE, bos_token="<s>", eos_token="</s>"),
    } | changes  # fmt: skip


@pytest.fixture(scope="session")
def llama_rn() -> Path:
    """The pinned npm package, in edge's cache or fetched (52 MB)."""
    return parts.fetch("llama.rn", Silent()) / "package"


@pytest.fixture(scope="session")
def host(llama_rn: Path, tmp_path_factory: pytest.TempPathFactory) -> host_build.Host:
    needs.programs(javac="openjdk-17-jdk-headless", gcc="gcc")
    return host_build.build(tmp_path_factory.mktemp("host"), llama_rn)


@pytest.fixture(scope="session")
def sanitized(host: host_build.Host, tmp_path_factory: pytest.TempPathFactory) -> host_build.Host:
    return host_build.sanitized(host, tmp_path_factory.mktemp("sanitized"))


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random phi3 as Q4_0; it never ends by itself within a few hundred tokens."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny("phi3-mini-4k"), path, Recipe.preset("int4"), context=1024)
    return path


@pytest.fixture(scope="session")
def roomy_gguf(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random phi3 that leaves an answer time to be stopped: a long context, and weights that do not end it soon."""
    path = tmp_path_factory.mktemp("gguf") / "roomy.gguf"
    context = {
        "max_position_embeddings": CONTEXT,
        "original_max_position_embeddings": CONTEXT,
        "sliding_window": None,
    }
    write_gguf(tiny("phi3-mini-4k", seed=1, **context), path, Recipe.preset("int4"), context=CONTEXT)
    return path


@pytest.fixture(scope="module")
def probe(host: host_build.Host, tiny_gguf: Path) -> Iterator[Probe]:
    """A call of a single class of the app: see ClassProbe.java."""
    command = host.java("dev.edge.core.ClassProbe", host.libraries / "libllama.so", tiny_gguf)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def call(name: str, text: str = "", **fields: Any) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps({"call": name, "text": text, **fields}), file=process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield call
        process.stdin.close()
        assert process.wait() == 0
