"""Adapter files through llama-cpp-python's low-level C API."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from converters.errors import UnsupportedError


def read(library: Any, model: Any, file: Path) -> Any:
    """The adapter in `file`, for contexts of `model` that are made later. UnsupportedError when it is none of it."""
    adapter: Any = library.llama_adapter_lora_init(model, str(file).encode())
    if not adapter:
        raise UnsupportedError(
            f"{file}: llama.cpp cannot use it with this model",
            hint="it was made for another one: convert again",
        )
    return adapter


def activate(library: Any, context: Any, adapter: Any) -> None:
    """Compute with `adapter`, at the strength that it was trained with."""
    adapters = (library.llama_adapter_lora_p_ctypes * 1)(adapter)
    library.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
