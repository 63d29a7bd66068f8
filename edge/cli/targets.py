"""`edge targets`: what can be converted for."""

from __future__ import annotations

from typing import Annotated

import typer


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on stdout.")] = False,
) -> None:
    """List the targets that `edge convert` knows.

    Add your own as a TOML file in the configuration directory, or as [targets.NAME] in ./edge.toml.
    """
    from edge.cli import console
    from edge.targets import load_targets

    known = [target for _, target in sorted(load_targets().items())]
    if as_json:
        console.write_json({"targets": [target.to_data() for target in known]})
        return
    for target in known:
        console.write(f"{target.name}: {console.clean(target.title)}")
        console.write(f"  runtime    {target.runtime}, {target.format}")
        console.write(f"  precision  {target.precision} (of {', '.join(target.limits)})")
        console.write(f"  context    {target.context_length} tokens, memory up to {target.memory_mb} MiB")
        console.write(f"  proven on  {console.clean(target.proven)}")
