"""`edge eval` beside llama.cpp's own llama-perplexity: `python -m benchmarks.eval_parity --text FILE`.

Both measure the same files: a checkpoint as an f16 GGUF, and what llama-quantize makes of it, with a float32 KV
cache, on the same windows. What differs is the build of llama.cpp and that its tool stores the base's
log-probabilities in 16 bits.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.llama_tools import llama_tools, run_tool
from edge import evaluate
from edge.cli import console
from edge.evaluation.engine import Engine
from edge.evaluation.reference import ArtifactReference
from edge.evaluation.windows import LENGTH, read_text

TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
_FLAGS = (
    *("-c", str(LENGTH), "-b", str(LENGTH)),
    *("-ctk", "f32", "-ctv", "f32", "-fa", "off"),
)
_PRINTED = {
    "perplexity": r"Mean PPL\(Q\) *: *([\d.]+) ± *([\d.]+)",
    "reference_perplexity": r"Mean PPL\(base\) *: *([\d.]+) ± *([\d.]+)",
    "ln_ratio": r"Mean ln\(PPL\(Q\)/PPL\(base\)\) *: *(-?[\d.]+) ± *([\d.]+)",
    "kl_mean": r"Mean +KLD: *(-?[\d.]+) ± *([\d.]+)",
    "kl_median": r"Median +KLD: *(-?[\d.]+)",
    "kl_p99": r"99\.0% +KLD: *(-?[\d.]+)",
    "top1": r"Same top p: *([\d.]+) ± *([\d.]+) %",
}
"""Lines of llama-perplexity's report."""


def make_base(model: str, work: Path) -> Path:
    """The model as an f16 GGUF."""
    bundle = work / "parity-f16"
    if not bundle.exists():
        words = [
            "convert",
            model,
            "--target",
            "android",
            "--precision",
            "f16",
            "--no-proof",
            "-o",
            str(bundle),
        ]
        subprocess.run(
            [sys.executable, "-c", "from edge.cli import main; raise SystemExit(main())", *words], check=True
        )
    return next(bundle.glob("*.gguf"))


def of_tool(tools: Path, quantized: Path, flags: list[str]) -> dict[str, tuple[float, ...]]:
    """The figures that llama-perplexity prints; top-1 as a share."""
    log = quantized.with_suffix(".log")
    printed = run_tool(tools, "llama-perplexity", "-m", str(quantized), "--kl-divergence", *flags, log=log)
    found = {}
    for name, pattern in _PRINTED.items():
        match = re.search(pattern, printed)
        if match is None:
            raise RuntimeError(f"{log}: no line like {pattern}")
        found[name] = tuple(float(n) / (100 if name == "top1" else 1) for n in match.groups())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--work", type=Path, default=Path(".bench"))
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    tools = llama_tools(work)
    base = make_base(options.model, work)
    flags = [*_FLAGS, "-f", str(options.text), "--chunks", str(options.windows), "-t", str(options.threads)]
    flags += ["--kl-divergence-base", str(work / "parity-base.kld")]
    run_tool(tools, "llama-perplexity", "-m", str(base), *flags, log=work / "parity-base.log")
    text = read_text(options.text)
    rows = []
    with Engine(base, name="f16", length=LENGTH, threads=options.threads) as engine:
        reference = ArtifactReference(engine)
        for kind in options.types:
            quantized = work / f"parity-{kind}.gguf"
            if not quantized.exists():
                run_tool(tools, "llama-quantize", str(base), str(quantized), kind, log=work / "quantize.log")
            theirs = of_tool(tools, quantized, flags)
            ours = evaluate.evaluate(
                quantized, reference, text, windows=options.windows, threads=options.threads
            ).to_data()
            for name, printed in theirs.items():
                mine = (ours[name]["value"], ours[name]["error"])[: len(printed)]
                rows.append(
                    [kind, name, *(" ± ".join(f"{n:.6f}" for n in numbers) for numbers in (printed, mine))]
                )
    for line in console.table(["file", "figure", "llama-perplexity", "edge eval"], rows):
        print(line)


if __name__ == "__main__":
    main()
