"""Engine settings, the prefix cache and speculative decoding."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import edge.chat.faster as faster
from edge.chat.drafts import check_vocabulary
from edge.runtimes import EngineSettings, llamacpp_state, open_runtime
from tests.edge.engines import Scripted
from tests.messages import World, case
from tests.messages.inspection import bundle


@case
def engine_settings(world: World) -> None:
    world.call(EngineSettings.from_data, {"speed": 11})
    world.call(EngineSettings.from_data, {"threads": 0})
    world.call(EngineSettings.from_data, {"spinning": "yes"})
    world.call(EngineSettings.from_data, {"kv_type": "int3"})
    world.call(EngineSettings.from_data, {"kv_type": "q8_0", "flash_attention": False})
    folder = bundle(world, "cpu") / "onnx-int4"
    world.call(open_runtime, Path(folder).relative_to(world.path), settings=EngineSettings(kv_type="f16"))


@case
def options_that_exclude_each_other(world: World) -> None:
    bundle(world, "cpu")
    world.edge("chat", "hello", "-m", "b", "--draft", "b", "--prompt-lookup")
    world.edge("chat", "hello", "-m", "b", "--draft", "nowhere")
    world.edge("chat", "hello", "-m", "b", "--prompt-lookup", "0")


@case
def system_message_in_a_file(world: World) -> None:
    bundle(world, "cpu")
    (world.path / "system.txt").write_bytes(b"\xff\xfe\x00")
    world.edge("chat", "hello", "-m", "b", "--system", "system.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faster, "_LONGEST_SYSTEM", 2)
        world.edge("chat", "hello", "-m", "b", "--system", "system.txt")


class _Other(Scripted):
    def token_bytes(self, token: int) -> bytes:
        return b"other" if token == 257 else super().token_bytes(token)


class _Special(Scripted):
    def encode(self, text: str, *, special: bool) -> list[int]:
        return [256] if special and text == "<|end|>" else super().encode(text, special=special)


@case
def drafts_of_another_tokenizer(world: World) -> None:
    target = Scripted([b"a", b"b"])
    world.call(check_vocabulary, target, Scripted([b"a"]))
    world.call(check_vocabulary, target, _Other([b"a", b"b"]))
    world.call(check_vocabulary, target, _Special([b"a", b"b"]))


@case
def state_that_cannot_be_read(world: World) -> None:
    library = SimpleNamespace(llama_state_seq_get_size=lambda *_: 8, llama_state_seq_get_data=lambda *_: 0)
    world.call(llamacpp_state.take, library, None)
