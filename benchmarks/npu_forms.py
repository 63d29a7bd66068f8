"""Both numeric forms of the NPU against the reference: `python -m benchmarks.npu_forms [--work DIR]`.

Random tiny models of three shapes and the first two layers of the embedded default, real weights and vocabulary,
converted with `--activations f16` and `u16` and run teacher-forced on Qualcomm's emulator, every node on it. Two
references: the reference evaluator on the weights as they are stored (what the form's arithmetic costs) and on the
checkpoint's own (what the form costs in all). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cut_checkpoint import DEFAULT, cut_checkpoint
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from converters.writer import Activations
from edge.convert import ConvertRequest, convert
from edge.plan import plan
from edge.progress import Silent
from edge.sources import resolve

TINY = ("phi3-mini-4k", "phi4-mini", "phi4")
FORMS: tuple[Activations, ...] = ("f16", "u16")
CONTEXT = 128


def models(work: Path) -> Iterator[tuple[str, Path]]:
    """(title, checkpoint). The tiny ones have the default's vocabulary, so that the texts are the same."""
    source = resolve(DEFAULT).directory
    tokenizer = [f for f in source.iterdir() if f.name.startswith(("tokenizer", "special", "chat_template"))]
    config = json.loads((source / "config.json").read_bytes())
    vocabulary = {key: config[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    for name in TINY:
        write_checkpoint(work / name, SHAPES[name] | vocabulary, tokenizer=None)
        for file in tokenizer:
            (work / name / file.name).write_bytes(file.read_bytes())
        yield f"{name}, tiny, random", work / name
    cut_checkpoint(source, work / "cut", 2)
    yield f"{DEFAULT}, first 2 layers", work / "cut"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="directory for models. [default: a temporary one]")
    parser.add_argument("--precision", choices=("int4", "int8"), action="append", help="default: both")
    options = parser.parse_args()
    print(
        "| model | weights | activations | against | tokens | cosine | KL mean | top-1 |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        work = Path(directory)
        for title, checkpoint in models(work):
            for precision in options.precision or ("int4", "int8"):
                for form in FORMS:
                    for question, found in _proof(checkpoint, precision, form, work / "bundle").items():
                        print(
                            f"| {title} | {precision} | {form} | {question} | {found['positions']} | "
                            f"{found['cosine']:.5f} | {found['kl_mean']:.2e} | {found['top1']:.1%} |",
                            flush=True,
                        )


def _proof(checkpoint: Path, precision: str, form: Activations, bundle: Path) -> dict[str, dict[str, float]]:
    """What proof.json says of the one variant."""
    request = ConvertRequest(
        str(checkpoint),
        ("android-npu",),
        precision,
        CONTEXT,
        bundle,
        activations=form,
        allow_unproven=True,
    )
    convert(plan(request), Silent())
    (variant,) = json.loads((bundle / "proof.json").read_bytes())["variants"].values()
    return {"stored weights": variant["fidelity"], "checkpoint": variant["quality"]}


if __name__ == "__main__":
    main()
