"""Stock onnxruntime-genai runs the same folder, one prompt at a time, with the decoder that an overlay names.

So the graphs' names and shapes are those that genai expects, and two engines agree on what they compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import pytest
from numpy.typing import NDArray

from edge.engine_settings import EngineSettings
from edge.runtimes.folder import read_folder
from edge.runtimes.multimodal.media import Prepared
from edge.runtimes.multimodal.runtime import MultimodalRuntime
from edge.runtimes.protocol import Medium
from tests.converters.genai_folder import arrays
from tests.edge.multimodal_support import TOLERANCE, kind_of, make, read, write_media

PREPARED = 0.02
"""For files that each engine prepares itself: genai's log-mel is less exact, its thumbnail of several crops another
(tests/converters/test_processor_files.py). Measured: 1.4e-3 and 1.7e-3, of logits of size 5."""
TinyMultimodal = Callable[..., Path]
# Of phi4mm pictures of one crop, which is its own thumbnail, and PNG, for genai has another JPEG decoder.
PROMPTS: dict[str, tuple[str, tuple[str, ...], str | None, float]] = {
    "text": ("phi4mm", (), None, TOLERANCE),
    "image": ("phi4mm", ("a.png",), "vision", TOLERANCE),
    "images": ("phi4mm", ("a.png", "c.png"), "vision", TOLERANCE),
    "audio": ("phi4mm", ("a.wav",), "speech", PREPARED),
    "image and audio": ("phi4mm", ("c.png", "a.wav"), "vision", PREPARED),
    "phi3_v": ("phi3_v", ("a.png",), None, PREPARED),
}
SIDES = {"phi4mm": 448, "phi3_v": 336}
"""Of crops: compiled into genai."""


@pytest.fixture(scope="module")
def folder(
    tiny_multimodal: TinyMultimodal, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def convert(layout: str) -> Path:
        if layout not in made:
            bundle = tmp_path_factory.mktemp(layout) / "b"
            make(tiny_multimodal(layout, crop=SIDES[layout]), bundle, precision="f32", context=3072)
            made[layout] = bundle / "multimodal-f32"
        return made[layout]

    return convert


def theirs(
    folder: Path, decoder: str | None, prompt: str, files: Sequence[Path]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """(what it prepared, logits) of onnxruntime-genai."""
    config = og.Config(str(folder))
    if decoder:
        config.overlay(json.dumps({"model": {"decoder": {"filename": f"model-{decoder}.onnx"}}}))
    model = og.Model(config)
    images = [str(file) for file in files if kind_of(file) == "image"]
    sounds = [str(file) for file in files if kind_of(file) == "audio"]
    given = {}
    if images:
        given["images"] = og.Images.open(*images)
    if sounds:
        given["audios"] = og.Audios.open(*sounds)
    inputs = model.create_multimodal_processor()(prompt, **given)
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=3000)
    generator = og.Generator(model, parameters)
    generator.set_inputs(inputs)
    return arrays(inputs), np.array(generator.get_logits()).ravel()


@pytest.mark.parametrize("name", PROMPTS)
def test_two_engines_agree(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    layout, names, decoder, tolerance = PROMPTS[name]
    write_media(tmp_path)
    counts = {"image": 0, "audio": 0}
    marks = ""
    for each in names:
        kind = kind_of(tmp_path / each)
        counts[kind] += 1
        marks += f"<|{kind}_{counts[kind]}|>"
    variant = folder(layout)
    prompt = f"<|user|>{marks}what is this?<|end|><|assistant|>"
    prepared, expected = theirs(variant, decoder, prompt, [tmp_path / each for each in names])
    runtime = MultimodalRuntime(read_folder(variant, None), EngineSettings(threads=1))
    shown = read(runtime, tmp_path, *names)
    runtime.show(shown)
    ids = prepared["input_ids"].ravel().tolist()
    assert len(ids) > sum(len(medium.ids) for medium in shown) + 3
    ours = runtime.append(ids)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)
    if tolerance > TOLERANCE:
        # The same arrays give the same logits: the rest is what was prepared.
        runtime.show([with_arrays(medium, prepared) for medium in shown])
        np.testing.assert_allclose(runtime.append(ids[runtime.position :]), expected, rtol=0, atol=TOLERANCE)
    runtime.close()


def with_arrays(medium: Medium, prepared: dict[str, NDArray[Any]]) -> Medium:
    """The medium with what genai has made of its file."""
    assert isinstance(medium, Prepared)
    return replace(
        medium, key=f"{medium.key}-theirs", inputs={name: prepared[name] for name in medium.inputs}
    )
