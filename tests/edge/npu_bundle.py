"""Why NPU tests cannot run here, if they cannot."""

from __future__ import annotations

import importlib.util
import platform
import sys

import pytest

HERE = sys.platform == "linux" and platform.machine() == "x86_64"
needs_emulator = pytest.mark.skipif(
    not HERE or importlib.util.find_spec("onnxruntime_qnn") is None,
    reason="Qualcomm's emulator comes with onnxruntime-qnn for Linux on x86-64 only",
)
