"""transformers' own talk, which is not for the person at the command line."""

from __future__ import annotations

from transformers.utils import logging


def quiet() -> None:
    """No warnings and no bars from now on."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers annotates none of it
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
