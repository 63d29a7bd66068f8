"""onnxruntime-qnn: Qualcomm's provider for onnxruntime, with its compiler and, on x86-64, an emulator of the NPU."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from converters.errors import MachineError, UnsupportedError
from edge.formats import INSTALL_QNN, QNN, TESTED_QNN
from edge.npu.socs import Soc

PROVIDER = "QNNExecutionProvider"
_AFFINITY = {"op_type": {"GroupQueryAttention": "htp"}}
"""Without it the provider leaves GroupQueryAttention to the CPU."""
_registered: set[str] = set()


def require() -> None:
    """UnsupportedError when the plugin is missing or another than the one that this project was tested with.

    Unknown options are ignored by it without a word, and which graphs it computes wrongly differs by version.
    """
    try:
        found = version(QNN.title)
    except PackageNotFoundError:
        raise UnsupportedError(
            "Qualcomm's NPU plugin, onnxruntime-qnn, is not installed", hint=INSTALL_QNN
        ) from None
    if found != TESTED_QNN:
        raise UnsupportedError(
            f"onnxruntime-qnn {found} is installed; edge is tested with {TESTED_QNN} and no other",
            hint=INSTALL_QNN,
        )


def register(engine: str) -> None:
    """Make the provider known to `engine`, "onnxruntime" or "onnxruntime_genai", once a process."""
    require()
    if engine in _registered:
        return
    import importlib

    import onnxruntime_qnn

    try:
        library = importlib.import_module(engine)
        library.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    except Exception as error:  # the engines' own exceptions share no base but this
        raise MachineError(
            f"the NPU plugin cannot be loaded: {str(error).splitlines()[0]}", hint="edge doctor"
        ) from None
    _registered.add(engine)


def soc_options(soc: Soc) -> dict[str, str]:
    """Provider options of a context binary's stages, on the device too: no path is in them."""
    return {
        "backend_type": "htp",
        "soc_model": str(soc.soc_model),
        "htp_arch": str(soc.htp_arch),
        "enable_htp_fp16_precision": "1",
    }


@contextmanager
def graph_options(soc: Soc) -> Iterator[Mapping[str, str]]:
    """Provider options to compile or run a graph with; they name a file that lives as long as the context."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="edge-op-affinity-") as file:
        json.dump(_AFFINITY, file)
        file.flush()
        # 3: the compiler's most thorough level (QNN provider, htp_graph_finalization_optimization_mode).
        yield {**soc_options(soc), "op_affinity": file.name, "htp_graph_finalization_optimization_mode": "3"}


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """While Qualcomm's libraries load, the banner that they print to stdout is dropped: stdout is data. What is
    wrong they say to stderr, or raise."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def device(onnxruntime: Any) -> Any:
    """onnxruntime's handle of the NPU, or of the processor that emulates it. MachineError when there is none."""
    found = [each for each in onnxruntime.get_ep_devices() if each.ep_name == PROVIDER]
    if not found:
        raise MachineError("the NPU plugin offers no device on this machine", hint="edge doctor")
    return found[0]
