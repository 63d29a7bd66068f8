"""Where tests of the emulated NPU do not run. A plugin that is missing where it could be is a failure."""

from __future__ import annotations

import platform
import sys

import pytest

needs_emulator = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="Qualcomm's emulator comes with onnxruntime-qnn for Linux on x86-64 only",
)
