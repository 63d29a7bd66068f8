"""The README's matrix is what this machine does now."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import matrix
from tests.edge.npu_emulator import needs_emulator

# Kernels of other processors round otherwise: int8 activations move a cosine by less than this, a fault by far more.
TOLERANCE = 2e-3
TOP1 = 0.1


def _cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]


@needs_emulator
def test_the_matrix_of_the_readme_is_not_stale(tmp_path: Path) -> None:
    expected, found = _cells(matrix.written()), _cells(matrix.table(list(matrix.rows(tmp_path))))
    assert [row[:6] for row in expected] == [row[:6] for row in found], "python -m benchmarks.matrix --write"
    assert [row[8] for row in expected] == [row[8] for row in found], "python -m benchmarks.matrix --write"
    for old, new in zip(expected[2:], found[2:], strict=True):
        assert bool(old[6]) == bool(new[6])
        if new[6]:
            assert float(new[6]) == pytest.approx(float(old[6]), abs=TOLERANCE), new
            assert float(new[7].rstrip("%")) == pytest.approx(float(old[7].rstrip("%")), abs=100 * TOP1), new
