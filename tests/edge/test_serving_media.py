"""Images and recordings that come with a request, on a tiny model that sees and hears."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.edge.multimodal_support import VOCABULARY, make, write_media
from tests.edge.serving_process import EDGE, ServerProcess, environment, serving

TinyMultimodal = Callable[..., Path]


@pytest.fixture(scope="module")
def place(tiny_multimodal: TinyMultimodal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With b, a bundle, and files of both kinds."""
    directory = tmp_path_factory.mktemp("media")
    checkpoint = tiny_multimodal("phi4_multimodal", vocab_size=VOCABULARY)
    make(checkpoint, directory / "b", precision="f32", context=1024)
    write_media(directory)
    return directory


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ServerProcess]:
    with serving(place / "b", log=place / "log") as process:
        yield process


def part(file: Path) -> dict[str, Any]:
    data = base64.b64encode(file.read_bytes()).decode()
    if file.suffix == ".png":
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "auto"}}
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def ask(server: ServerProcess, *parts: dict[str, Any]) -> Any:
    content: Any = [*parts, {"type": "text", "text": "What is it?"}]
    return server.client().chat.completions.create(
        model="b", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=8
    )


@pytest.mark.parametrize("name", ["a.png", "a.wav"])
def test_it_sees_and_hears_what_edge_chat_does(server: ServerProcess, place: Path, name: str) -> None:
    option = "--image" if name.endswith("png") else "--audio"
    command = [*EDGE, "chat", "-m", str(place / "b"), "--json", "-n", "8", "--threads", "1"]
    done = subprocess.run(
        [*command, option, str(place / name), "What is it?"],
        capture_output=True, stdin=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    said = json.loads(done.stdout)
    answer = ask(server, part(place / name))
    assert answer.choices[0].message.content == said["answer"]
    assert answer.usage.prompt_tokens == said["prompt_tokens"] > ask(server).usage.prompt_tokens


def test_a_damaged_image_is_a_bad_request_and_the_next_one_is_answered(
    server: ServerProcess, place: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "x.png"
    broken.write_bytes((place / "a.png").read_bytes()[:200])
    with pytest.raises(openai.BadRequestError, match="image 1 of message 1"):
        ask(server, part(broken))
    assert ask(server, part(place / "a.png")).usage.completion_tokens > 0
