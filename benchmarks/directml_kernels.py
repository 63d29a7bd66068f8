"""Write converters/onnx/dml/kernels.json: the kernels that onnxruntime publishes for DirectML, as data.

    python -m benchmarks.directml_kernels --git CLONE --commit HASH

CLONE is any clone of github.com/microsoft/onnxruntime that has the commit; the table is docs/OperatorKernels.md of
it, which onnxruntime generates from the kernels that it registers (tools/python/gen_opkernel_doc.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = "docs/OperatorKernels.md"
OUTPUT = Path(__file__).parents[1] / "converters/onnx/dml/kernels.json"
_SECTION = "## Operators implemented by DmlExecutionProvider"
_DOMAIN = re.compile(r"\|\*\*Operator Domain:\*\* \*(.+?)\*\|")
_PARAMETER = re.compile(r"\*(in|out)\* ([\w.]+):\*\*(.+?)\*\*")
_CONSTRAINT = re.compile(r"\*\*(\w+)\*\* = ([^<]+)")
_TYPE = re.compile(r"(?<!seq\()tensor\((\w+)\)")


def rows(table: str) -> Iterator[tuple[str, str, str, str, str]]:
    """(domain, operator, parameters, versions, types) of the DirectML section; domain "" is ai.onnx."""
    domain = operator = parameters = ""
    for line in table[table.index(_SECTION) :].splitlines():
        if found := _DOMAIN.match(line):
            domain = "" if found[1] == "ai.onnx" else found[1]
        cells = line.split("|")
        if len(cells) != 6 or cells[1].strip().startswith(("**", "Op Name", "--")):
            continue
        if cells[1]:
            operator, parameters = cells[1], cells[2]
        yield domain, operator, parameters, cells[3], cells[4]


def operators(table: str) -> list[dict[str, Any]]:
    """One entry an operator: its signatures, and the versions of its kernels with the types that each takes.

    A signature is [inputs, outputs], each parameter its type variable, or its type where that is fixed.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for domain, operator, parameters, versions, types in rows(table):
        entry = found.setdefault(
            (domain, operator),
            {"domain": domain, "op": operator, "signatures": _signatures(parameters), "kernels": {}},
        )
        entry["kernels"][versions] = {
            name: _TYPE.findall(kinds) for name, kinds in _CONSTRAINT.findall(types)
        }
    return list(found.values())


def _signatures(parameters: str) -> list[list[list[str]]]:
    signatures = []
    for alternative in parameters.split("<br><br>or<br><br>"):
        sides: dict[str, list[str]] = {"in": [], "out": []}
        for side, name, kind in _PARAMETER.findall(alternative):
            fixed = _TYPE.fullmatch(kind)
            sides[side].append((fixed[1] if fixed else kind) + ("..." if name.endswith("...") else ""))
        signatures.append([sides["in"], sides["out"]])
    return signatures


def document(table: bytes, commit: str, version: str) -> str:
    """The whole file, one operator a line."""
    source = {
        "repository": "github.com/microsoft/onnxruntime",
        "path": PATH,
        "commit": commit,
        "version": version,
        "sha256": hashlib.sha256(table).hexdigest(),
    }
    lines = [json.dumps(entry, separators=(",", ":")) for entry in operators(table.decode())]
    return f'{{"source": {json.dumps(source, indent=1)},\n"operators": [\n' + ",\n".join(lines) + "\n]}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--git", required=True, help="a clone of onnxruntime")
    parser.add_argument("--commit", required=True, help="all 40 digits")
    asked = parser.parse_args()

    def show(path: str) -> bytes:
        command = ["git", "-C", asked.git, "show", f"{asked.commit}:{path}"]
        return subprocess.run(command, check=True, capture_output=True).stdout

    OUTPUT.write_text(document(show(PATH), asked.commit, show("VERSION_NUMBER").decode().strip()))


if __name__ == "__main__":
    main()
