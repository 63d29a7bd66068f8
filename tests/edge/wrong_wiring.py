"""A conversion whose writer is told of another decoder than the proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.decoder import Decoder
from converters.errors import ProofError
from edge import convert as convert_module


def refused(
    convert: Callable[[Path, Path, str], object],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    corrupt: Callable[[Decoder], Decoder],
    said: str,
) -> None:
    """`convert` (checkpoint, output, target) must fail its proof and publish nothing; `said`: what the proof must find
    (a pattern)."""
    real = convert_module._open_writer

    def wired_wrong(planned: Any, variant: Any, decoder: Decoder, directory: Path) -> Any:
        return real(planned, variant, corrupt(decoder), directory)

    monkeypatch.setattr(convert_module, "_open_writer", wired_wrong)
    with pytest.raises(ProofError, match=said):
        convert(checkpoint, tmp_path / "b", target)
    assert not (tmp_path / "b").exists()
