"""The GGUF format, for llama.cpp: one file a variant.

`check` and `context_limit` say beforehand what llama.cpp can do with a model, `planned_bytes` how large the file
will be, `open_writer` writes it in one streamed pass, `open_stored` reads it back for the proof.
"""

from converters.gguf.limits import check, context_limit
from converters.gguf.stored import open_stored
from converters.gguf.writer import open_writer, planned_bytes

__all__ = ["check", "context_limit", "open_stored", "open_writer", "planned_bytes"]
