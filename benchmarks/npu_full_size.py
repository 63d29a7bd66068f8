"""What a real-sized layer costs the NPU's compiler: `python -m benchmarks.npu_full_size DIR [--soc SOC,SOC]`.

One layer of phi-4-mini's own sizes (random weights, a small vocabulary) is written in both numeric forms and
compiled for every SoC, on this machine; two layers for one SoC, for what each further one adds; then as one binary
with shared weights and as one archive for two SoCs, which are looked at and never loaded. From that follows a plan
for the whole model. Prints Markdown tables; benchmarks/npu.md holds one run's.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.npu_plan import Measured, plan_table
from benchmarks.random_checkpoint import SHAPES, TOKENIZERS, write_checkpoint
from converters.checkpoint import Checkpoint
from converters.decoder import Decoder
from converters.models import describe
from converters.onnx import npu
from converters.onnx.npu.config import NPU_STAGES
from converters.onnx.npu.limits import cache_length
from converters.writer import Activations
from edge.npu.compiler import Compiled, compile_graph
from edge.npu.shared import archived, compile_for_socs, compile_shared
from edge.npu.socs import Soc, get_socs, load_socs
from edge.npu.system import read_contents
from edge.targets import get_target
from quant.recipe import Recipe

CONTEXT = 2048
FORMS: tuple[Activations, ...] = ("f16", "u16")
SLOPE_SOC, SECOND_SOC = "SM8650", "SM8750"


@dataclass(frozen=True)
class Written:
    """A variant in `folder`; `seconds` to write it."""

    folder: Path
    decoder: Decoder
    seconds: float


def write(directory: Path, layers: int, activations: Activations) -> Written:
    """Layers of phi-4-mini's sizes. The ranges of u16 are made up: they decide no size and no time."""
    checkpoint, folder = directory / f"checkpoint-{layers}", directory / f"{activations}-{layers}"
    if not checkpoint.exists():
        config = SHAPES["phi4-mini-full"] | {"num_hidden_layers": layers, "vocab_size": 2048}
        write_checkpoint(checkpoint, config, tokenizer=TOKENIZERS["phi4-mini-full"])
    recipe = replace(Recipe.preset("int4"), activations=activations)
    began = time.perf_counter()
    with Checkpoint.open(checkpoint) as opened:
        decoder = describe(opened)
        writer = npu.open_writer(
            decoder, recipe, folder, context_length=CONTEXT, checkpoint_directory=checkpoint
        )
        for weight in decoder.weights():
            step = max(1, (4 << 20) // (2 * weight.shape[-1]))
            for start in range(0, weight.rows, step):
                rows = opened.weight_rows(weight, start, min(start + step, weight.rows))
                writer.write(weight, start, recipe.encode(weight, rows, start=start))
        writer.close()
    return Written(folder, decoder, time.perf_counter() - began)


def compile_apart(folder: Path, soc: Soc) -> tuple[dict[str, Compiled], dict[str, int]]:
    """Each stage on its own: what it took, and the bytes of its binary."""
    target = folder.with_name(f"{folder.name}-{soc.name}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    done, sizes = {}, {}
    for stage in NPU_STAGES:
        done[stage] = compile_graph(folder / f"{stage}.onnx", soc, target / f"{stage}.onnx")
        sizes[stage] = (target / f"{stage}_qnn.bin").stat().st_size
    shutil.rmtree(target)
    return done, sizes


def together(folder: Path, socs: Sequence[Soc]) -> tuple[int, int]:
    """Bytes of the binary with shared weights, and of the archive for all `socs`; what each holds is printed."""
    target = folder.with_name(f"{folder.name}-together")
    shutil.rmtree(target, ignore_errors=True)
    (target / "shared").mkdir(parents=True)
    shared = compile_shared([folder / f"{stage}.onnx" for stage in NPU_STAGES], socs[0], target / "shared")
    contents = read_contents(shared.binary)
    archive = compile_for_socs(folder / "iterator.onnx", socs, target / "iterator.onnx")
    files = archived(archive.binary)
    sizes = shared.binary.stat().st_size, archive.binary.stat().st_size
    print(
        f"shared, {socs[0].name}: {_mb(sizes[0])} MB, {len(contents.graphs)} graphs for soc_model "
        f"{contents.soc_model}, {shared.seconds:.0f} s, peak {_mb(shared.peak_bytes)} MB  "
    )
    print(
        f"archive for {', '.join(soc.name for soc in socs)}: {_mb(sizes[1])} MB, {archive.seconds:.0f} s, "
        f"peak {_mb(archive.peak_bytes)} MB: {', '.join(f'{_mb(n)} MB {name[:18]}' for name, n in files.items())}"
    )
    shutil.rmtree(target)
    return sizes


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="for the checkpoints and variants, about 600 MB")
    parser.add_argument("--soc", default=",".join(load_socs()), help="default: all")
    options = parser.parse_args()
    socs = get_socs(options.soc.split(","))
    cost = {}
    print("| activations | SoC | stage | seconds | peak memory, MB | binary, MB |\n|---|---|---|---|---|---|")
    folders = {form: write(options.directory, 1, form) for form in FORMS}
    for form, written in folders.items():
        for soc in socs:
            done, cost[form, soc.name, 1] = compile_apart(written.folder, soc)
            _rows(form, soc.name, done, cost[form, soc.name, 1])
        done, cost[form, SLOPE_SOC, 2] = compile_apart(
            write(options.directory, 2, form).folder, get_socs([SLOPE_SOC])[0]
        )
        _rows(form, f"{SLOPE_SOC}, two layers", done, cost[form, SLOPE_SOC, 2])
    print()
    for form, written in folders.items():
        print(f"{form}: written in {written.seconds:.1f} s  ")
        shared, _ = together(written.folder, get_socs([SLOPE_SOC, SECOND_SOC]))
        one, two = (sum(cost[form, SLOPE_SOC, layers].values()) for layers in (1, 2))
        measured = Measured(one, two - one, shared / one)
        print()
        print(
            plan_table(
                form, measured, written.decoder, cache_length(CONTEXT), get_target("android-npu").memory_mb
            )
        )
        print()


def _rows(form: str, label: str, done: dict[str, Compiled], sizes: dict[str, int]) -> None:
    for stage, compiled in done.items():
        print(
            f"| {form} | {label} | {stage} | {compiled.seconds:.0f} | {_mb(compiled.peak_bytes)} | "
            f"{_mb(sizes[stage])} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
