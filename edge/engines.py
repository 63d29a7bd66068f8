"""The engines' packages: which module runs a format, and what installs it. Imports nothing."""

from __future__ import annotations

INSTALL_GENAI = "pip install onnxruntime-genai"
INSTALL_LLAMA_CPP = "pip install llama-cpp-python==0.3.36"
"""The version that the tests run; pyproject.toml pins the same in the extra `gguf`."""

ENGINES = {"onnx": ("onnxruntime_genai", INSTALL_GENAI), "gguf": ("llama_cpp", INSTALL_LLAMA_CPP)}
"""Format -> (module, command)."""
