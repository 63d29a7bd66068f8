"""Texts that overflow llama.cpp's stack.

Pre-tokenizers without hand-written code run in std::regex, which takes about 300 bytes of stack for every
character of one match: 30 000 letters, spaces or exclamation marks in a row end the process (measured with
llama-cpp-python 0.3.36 and a stack of 8 MiB). Whoever tokenizes with such a file asks here first.
"""

from __future__ import annotations

import unicodedata

LONGEST = 8192
"""Characters in one match that are surely safe: less than a third of a stack of 8 MiB."""
# With these names the engine's own loops do the work (src/unicode.cpp, unicode_regex_split_custom), or matches
# are single characters before such a loop.
_LOOPS = frozenset(
    ("gpt-2", "smollm", "dbrx", "llama-bpe", "qwen2", "phi-2", "llama3", "smaug-bpe", "starcoder")
)


def runs_in_regex(model: str, pre: str) -> bool:
    """Whether a file with these `tokenizer.ggml.*` is split by std::regex."""
    return model == "gpt2" and pre not in _LOOPS


def too_long(text: str, *, model: str, pre: str) -> int | None:
    """Length of a run in `text` that is over LONGEST, for a file with these `tokenizer.ggml.*`; else None.

    A match holds letters, or digits, or white space, or the rest; combining marks go with letters and the rest.
    """
    if len(text) <= LONGEST or not runs_in_regex(model, pre):
        return None
    run, last = 0, ""
    for character in text:
        kind = "Z" if character.isspace() else unicodedata.category(character)[0]
        kind = kind if kind in "LMNZ" else "P"
        joins = kind == last or (kind == "M" and last in ("L", "P")) or (last == "M" and kind in "LP")
        run = run + 1 if joins else 1
        if not (joins and kind == "M"):
            last = kind
        if run > LONGEST:
            return run
    return None
