"""What is written, loads and runs here, model by target: `python -m benchmarks.matrix [--write]`.

Every model is converted for every target and proven in the target's own runtime, as far as this machine has it. The
models are tiny ones of random weights in the shapes of the real ones, and two layers of the embedded default with its
real weights and vocabulary. `--write` puts the table into the README.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cut_checkpoint import DEFAULT, cut_checkpoint
from benchmarks.random_checkpoint import ALL_SHAPES, ALL_TOKENIZERS, write_checkpoint
from benchmarks.tiny_multimodal import Layout, write_multimodal
from converters.errors import EdgeError
from edge.convert import ConvertRequest, convert, plan
from edge.progress import Silent
from edge.sources import resolve
from edge.targets import load_targets

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- matrix: python -m benchmarks.matrix --write -->\n", "<!-- end of matrix -->\n"
MODELS = {
    "Phi-3-mini": "phi3-mini-4k", "Phi-4-mini": "phi4-mini", "Phi-4": "phi4", "Phi-3-small": "phi3-small",
    "Phi-3.5-MoE": "phi3.5-moe", "Phi-4-mini-flash": "phi4-flash",
}  # fmt: skip
MULTIMODAL: dict[str, tuple[Layout, int]] = {
    "Phi-4-multimodal": ("phi4mm", 448),
    "Phi-3-vision": ("phi3_v", 336),
}
"""Layout, and pixels of a crop."""
CUT = "SmolLM2-135M, 2 layers"
SOC = "SM8650"
REFUSED = "refused"
HEADER = ("model", "target", "artifact", "written", "loads", "runs here", "cosine", "top-1", "executed on")


@dataclass(frozen=True)
class Row:
    """One artifact. `cosine` and `top1`: of its logits against the reference on the stored weights; None: not run."""

    model: str
    target: str
    artifact: str
    loads: bool
    runs: bool
    cosine: float | None
    top1: float | None
    where: str

    def cells(self) -> tuple[str, ...]:
        figures = ["" if x is None else f"{x:.4f}" for x in (self.cosine,)]
        figures += ["" if x is None else f"{x:.0%}" for x in (self.top1,)]
        written = "no" if self.artifact.startswith(REFUSED) else "yes"
        yes = [written, "yes" if self.loads else "no", "yes" if self.runs else "no"]
        return (self.model, self.target, self.artifact, *yes, *figures, self.where)


def checkpoints(work: Path) -> Iterator[tuple[str, Path]]:
    for title, shape in MODELS.items():
        write_checkpoint(work / shape, ALL_SHAPES[shape], tokenizer=ALL_TOKENIZERS[shape])
        yield title, work / shape
    for title, (layout, crop) in MULTIMODAL.items():
        write_multimodal(work / layout, layout, crop=crop)
        yield title, work / layout
    cut_checkpoint(resolve(DEFAULT).directory, work / "cut", 2)
    yield CUT, work / "cut"


def rows(work: Path) -> Iterator[Row]:
    """Of every model and built-in target, in that order. A target that refuses a model gives one row that says so."""
    for model, checkpoint in checkpoints(work):
        for target in load_targets(work):
            yield from _rows(model, checkpoint, target, work / f"{checkpoint.name}-{target}")


def _rows(model: str, checkpoint: Path, target: str, output: Path) -> Iterator[Row]:
    socs = (SOC,) if load_targets()[target].format == "npu" else ()
    context = 4096 if model in MULTIMODAL else 128  # the proof's picture takes Phi-3-vision 1,921 tokens
    request = ConvertRequest(
        str(checkpoint), (target,), context=context, output=output, socs=socs, allow_unproven=True, threads=1
    )
    try:
        report = convert(plan(request), Silent())
    except EdgeError as error:
        yield Row(model, target, f"{REFUSED}: {error.cause}", False, False, None, None, "")
        return
    assert report.proof is not None
    for name, result in report.proof["variants"].items():
        parts = {name: result.get("fidelity")}
        parts |= {f"{name}, {prompt}": p.get("fidelity") for prompt, p in result.get("prompts", {}).items()}
        parts |= {f"{name}, adapter {each}": r["fidelity"] for each, r in result.get("adapters", {}).items()}
        for part, found in parts.items():
            figures = (found["cosine"], found["top1"]) if found else (None, None)
            runtime = result.get("runtime", "")
            yield Row(model, target, part, "runtime" in result, bool(found), *figures, runtime)


def table(found: list[Row]) -> str:
    """Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *(row.cells() for row in found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written() -> str:
    """The table as the README has it."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = []
        for row in rows(Path(work)):
            found.append(row)
            print(" | ".join(row.cells()), file=sys.stderr, flush=True)
    if args.write:
        text = README.read_text(encoding="utf-8")
        head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        README.write_text(head + table(found) + tail, encoding="utf-8")
    else:
        print(table(found), end="")


if __name__ == "__main__":
    main()
