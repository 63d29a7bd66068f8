"""Variants with context binaries: for each SoC one folder that a phone takes as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import UnsupportedError
from converters.onnx.genai_config import CONFIG_FILE
from converters.onnx.npu.config import NPU_STAGES, with_provider
from converters.onnx.npu.layout import HEAD_DATA, LAYERS_DATA
from converters.onnx.tokenizer_files import OPTIONAL, REQUIRED
from edge.npu.binary import write_record
from edge.npu.compiler import Compiled, compile_graph
from edge.npu.plugin import soc_options
from edge.npu.socs import DEFAULT, Soc, get_socs
from edge.progress import Progress

if TYPE_CHECKING:
    from edge.planned import Plan

SHARED = (HEAD_DATA, "embeddings.onnx", "lm_head.onnx", *REQUIRED, *OPTIONAL)


def make_contexts(
    source: Path, target: Path, soc: Soc, progress: Progress, *, allow_cpu: bool
) -> dict[str, Compiled]:
    """Compile the stages of the variant in `source` for `soc` into the new folder `target`.

    What the CPU runs is linked, not copied. Returns what each stage took. Raises UnsupportedError naming the nodes
    that would run on the CPU, unless `allow_cpu`, and as `compile_graph` does; whoever called removes the folder then.
    """
    target.mkdir()
    progress.stage(f"compile for {soc.name}", len(NPU_STAGES), "graphs")
    done: dict[str, Compiled] = {}
    for stage in NPU_STAGES:
        graph = f"{stage}.onnx"
        done[stage] = compile_graph(source / graph, soc, target / graph, allow_cpu=allow_cpu)
        refuse_elsewhere(stage, done[stage], allow_cpu=allow_cpu)
        progress.advance(1)
    left = any(each.elsewhere() for each in done.values())
    for name in (*SHARED, *([LAYERS_DATA] if left else [])):
        if (source / name).exists():
            os.link(source / name, target / name)
    config = json.loads((source / CONFIG_FILE).read_bytes())
    config = with_provider(config, soc_options(soc), allow_cpu=left)
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_record(target, soc)
    return done


def place(planned: Plan, directory: Path, progress: Progress) -> dict[str, Any]:
    """Compile what the plan says, and find out where each node of its NPU variants runs: {variant: {stage: {device:
    {operator: nodes}}}}. Empty when there is none. A plan without proof and SoCs asks for no plugin, and for nothing.

    Raises UnsupportedError naming the nodes that would run on the CPU, unless the person allowed that.
    """
    found: dict[str, Any] = {}
    allow_cpu = planned.request.allow_cpu
    for variant in planned.variants:
        path = directory / variant.relative_path
        if variant.soc:
            source = next(v for v in planned.variants if v.name == variant.source)
            made = make_contexts(
                directory / source.relative_path, path, variant.soc, progress, allow_cpu=allow_cpu
            )
            found[variant.name] = {stage: placement(done) for stage, done in made.items()}
        elif variant.format == "npu" and planned.request.proof and not planned.request.socs:
            found[variant.name] = _where(path, progress, allow_cpu=allow_cpu)
        if variant.format == "npu" and allow_cpu:
            _let_fall_back(path)
    return found


def _let_fall_back(folder: Path) -> None:
    file = folder / CONFIG_FILE
    config = json.loads(file.read_bytes())
    if "session_options" not in config["model"]["decoder"]["pipeline"][0][NPU_STAGES[0]]:
        file.write_text(
            json.dumps(with_provider(config, None, allow_cpu=True), indent=2) + "\n", encoding="utf-8"
        )


def _where(folder: Path, progress: Progress, *, allow_cpu: bool) -> dict[str, Any]:
    (soc,) = get_socs([DEFAULT])
    progress.stage("place every node", len(NPU_STAGES), "graphs")
    found = {}
    for stage in NPU_STAGES:
        done = compile_graph(folder / f"{stage}.onnx", soc, None, allow_cpu=allow_cpu)
        refuse_elsewhere(stage, done, allow_cpu=allow_cpu)
        found[stage] = placement(done)
        progress.advance(1)
    return found


def refuse_elsewhere(stage: str, done: Compiled, *, allow_cpu: bool) -> None:
    """UnsupportedError that names the nodes which are not on the NPU."""
    left = done.elsewhere()
    if not left or allow_cpu:
        return
    names = ", ".join(f"{node.node} ({node.operator})" for node in left[:4])
    more = f" and {len(left) - 4} more" if len(left) > 4 else ""
    raise UnsupportedError(
        f"{stage}: the NPU does not take {names}{more}; they would run on the CPU",
        hint="--allow-cpu takes that in, slower; or convert for the CPU: --target android",
    )


def placement(done: Compiled) -> dict[str, dict[str, int]]:
    """{device: {operator: nodes}}."""
    counted: dict[str, dict[str, int]] = {}
    for node in done.nodes:
        operators = counted.setdefault(node.device, {})
        operators[node.operator] = operators.get(node.operator, 0) + 1
    return counted
