"""What an encoder takes to run does not grow with the number of crops, or with the length of a recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.encoders import write
from benchmarks.tiny_multimodal import write_multimodal
from converters.checkpoint import Checkpoint
from converters.models import describe_whole
from converters.multimodal import Multimodal
from quant.recipe import Recipe

CHILD = """
import sys
import numpy as np
import onnxruntime as ort
from edge.machine import peak_memory
kind, size = sys.argv[2], int(sys.argv[3])
if kind == "vision":
    shape = (1, 1 + size)
    feeds = {
        "pixel_values": np.zeros((*shape, 3, 448, 448), np.float32),
        "image_attention_mask": np.ones((*shape, 32, 32), np.float32),
        "image_sizes": np.array([[448, 448 * size]]),
    }
else:
    feeds = {
        "audio_embeds": np.zeros((1, size, 80), np.float32),
        "audio_attention_mask": np.ones((1, size), bool),
        "audio_sizes": np.array([-(-size // 8)]),
        "audio_projection_mode": np.array([2]),
    }
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options)
before = peak_memory()
found = session.run(None, feeds)[0]
print(peak_memory() - before - 3 * sum(value.nbytes for value in feeds.values()) - 4 * found.nbytes)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of the real 448 pixels: one's attention takes 16 heads of 1024 by 1024 scores, 64 MB."""
    directory = tmp_path_factory.mktemp("large-crops")
    write_multimodal(directory, "phi4mm", crop=448)
    with Checkpoint.open(directory) as checkpoint:
        described = describe_whole(checkpoint)
        assert isinstance(described, Multimodal)
        for name, encoder in (("vision", described.vision), ("speech", described.speech)):
            assert encoder is not None
            (directory / name).mkdir()
            write(checkpoint, encoder, Recipe.preset("f32"), directory / name, 0)
    return directory


def taken(model: Path, kind: str, size: int) -> int:
    """Bytes at the peak of a run beyond the loaded session, the inputs, their gathered copies and the features."""
    command = [sys.executable, "-c", CHILD, str(model / kind / "encoder.onnx"), kind, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_crops(model: Path) -> None:
    """Eight more crops at once would take 512 MB of scores more."""
    assert taken(model, "vision", 9) < taken(model, "vision", 1) + (48 << 20)


def test_length_of_a_recording(model: Path) -> None:
    """Eight more stretches of 500 positions at once would take 32 MB of scores more, and the images of the first
    convolution, 16 channels of 40 bands for every second frame, 40 MB."""
    assert taken(model, "speech", 36000) < taken(model, "speech", 4000) + (16 << 20)
