"""A bundle, and what a report finds of it, made once for all tests of `edge report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.report import Request, gather
from edge.reporting.findings import Findings

Tiny = Callable[..., Path]


@pytest.fixture(scope="session")
def reported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven bundle of tiny("phi4") with both formats. Not to be changed."""
    output = tmp_path_factory.mktemp("report") / "made"
    request = ConvertRequest(str(tiny("phi4")), ("cpu", "android"), context=256, output=output, threads=1)
    convert(plan(request), Silent())
    return output


@pytest.fixture(scope="session")
def report_findings(reported: Path, tiny: Tiny) -> Findings:
    """Of that bundle, with its checkpoint."""
    return gather(Request(reported, str(tiny("phi4")), windows=1, threads=1), Silent())
