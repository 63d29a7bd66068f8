"""`edge doctor`: can this machine do the work?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli import console


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """Check this machine: packages, engines, memory, disk, adb.

    Exit code 1 when a check fails; a warning is something that only some uses need.
    """
    from edge.doctor import examine

    findings = examine(Path.cwd())
    if as_json:
        console.write_json({"findings": [f.to_data() for f in findings]})
    else:
        width = max(len(f.what) for f in findings)
        for finding in findings:
            console.write(f"{finding.status:4}  {finding.what.ljust(width)}  {console.clean(finding.found)}")
            if finding.hint:
                console.write(f"{'':4}  {'':{width}}  hint: {console.clean(finding.hint)}")
    if any(f.status == "fail" for f in findings):
        raise typer.Exit(1)
