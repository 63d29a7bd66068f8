"""Engine settings, the prefix cache and speculative decoding."""

from __future__ import annotations

from pathlib import Path

from edge.runtimes import EngineSettings, open_runtime
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
