"""llama.cpp as a library in this process: started once, silent, and brief where it gives up."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from converters.errors import MachineError

_callbacks: list[Any] = []
"""The C callbacks, kept alive as long as the library."""


def start(library: Any) -> None:
    """Once a process: no log on stderr, and two lines instead of a backtrace where ggml gives up."""
    if _callbacks:
        return
    from llama_cpp._ggml import libggml

    def ignore(level: int, text: bytes, user: object) -> None: ...

    def abort(message: bytes) -> None:
        # ggml aborts the process when this returns. Nothing in it can be saved: leave as the machine's fault.
        cause = message.decode("utf-8", "replace").rpartition("/")[2]
        print(f"error: llama.cpp gave up: {cause}", file=sys.stderr)
        print(
            "hint: the file is damaged or this llama.cpp cannot run it; `edge inspect FILE`", file=sys.stderr
        )
        sys.stderr.flush()
        os._exit(MachineError.exit_code)

    _callbacks.append(library.llama_log_callback(ignore))
    _callbacks.append(ctypes.CFUNCTYPE(None, ctypes.c_char_p)(abort))
    library.llama_log_set(_callbacks[0], ctypes.c_void_p(0))
    libggml.ggml_set_abort_callback(_callbacks[1])
    library.llama_backend_init()
