"""What an artifact can be, and the engine that runs each kind. Imports nothing: targets and doctor read it.

The code that writes and reads a format is its room (`converters.rooms`), the code that runs it is in `edge.runtimes`.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTALL_GENAI = "pip install onnxruntime-genai"
INSTALL_LLAMA_CPP = "pip install llama-cpp-python==0.3.36"
"""The version that the tests run; pyproject.toml pins the same in the extra `gguf`."""
TESTED_QNN = "2.7.0"
"""The version that the tests run; pyproject.toml pins the same in the extra `npu`. Which graphs the plugin computes
wrongly differs by version, so no other is taken."""
INSTALL_QNN = f"pip install onnxruntime-qnn=={TESTED_QNN}"

INSTALL_DIRECTML = "pip install onnxruntime-genai-directml==0.13.1"
"""The newest for Windows; it brings onnxruntime-directml."""


@dataclass(frozen=True)
class Engine:
    """A Python module that runs artifacts, and the command that installs it."""

    title: str
    module: str
    install: str


GENAI = Engine("onnxruntime-genai", "onnxruntime_genai", INSTALL_GENAI)
ONNXRUNTIME = Engine("onnxruntime", "onnxruntime", "pip install onnxruntime")
LLAMA_CPP = Engine("llama.cpp", "llama_cpp", INSTALL_LLAMA_CPP)
QNN = Engine("onnxruntime-qnn", "onnxruntime_qnn", INSTALL_QNN)


@dataclass(frozen=True)
class Format:
    """`engines`: all that must be installed to run it here; the first one names the runtime. `folder`: whether an
    artifact is a folder, else a single file. `phone`: whether a phone can run it."""

    name: str
    runtime: str
    engines: tuple[Engine, ...]
    folder: bool = True
    phone: bool = True


ENCODER = "encoder"
"""Labels or vectors instead of text: `edge.encoder`, and no engine of `edge.runtimes`."""

FORMATS = {
    each.name: each
    for each in (
        Format("onnx", "onnxruntime-genai", (GENAI,)),
        Format("gguf", "llama.cpp", (LLAMA_CPP,), folder=False),
        Format("multimodal", "onnxruntime", (ONNXRUNTIME,)),
        Format(ENCODER, "onnxruntime", (ONNXRUNTIME,)),
        Format("npu", "onnxruntime-genai with Qualcomm QNN", (GENAI, QNN)),
        Format("dml", "onnxruntime-genai with DirectML", (GENAI,), phone=False),
    )
}
