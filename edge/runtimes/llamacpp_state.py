"""The KV cache of llama.cpp's sequence 0 as bytes (llama.h, llama_state_seq_get_data and its like)."""

from __future__ import annotations

import ctypes
from typing import Any

from converters.errors import MachineError


def take(library: Any, context: Any) -> bytes:
    """Keys and values of every position that the cache holds, in its own types."""
    size: int = library.llama_state_seq_get_size(context, 0)
    buffer = (ctypes.c_uint8 * size)()
    if library.llama_state_seq_get_data(context, buffer, size, 0) != size:
        raise MachineError("llama.cpp: the state of the cache cannot be read", hint="--no-prefix-cache")
    return bytes(buffer)


def put(library: Any, context: Any, data: bytes, length: int) -> bool:
    """Fill the empty cache with what `take` gave; whether it then holds positions 0 to length - 1."""
    buffer = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))  # no copy: it is only read
    if library.llama_state_seq_set_data(context, buffer, len(data), 0) != len(data):
        return False
    memory = library.llama_get_memory(context)
    ends = library.llama_memory_seq_pos_min(memory, 0), library.llama_memory_seq_pos_max(memory, 0)
    return bool(ends == (0, length - 1))
