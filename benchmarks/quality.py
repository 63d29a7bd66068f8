"""Is calibrated int4 worth it? One table: `python -m benchmarks.quality [--models ...] [--only PATTERN]`.

Models: the embedded default's twins (benchmarks/twins.py: `rotated` without outliers, `permuted` with them,
`wide` where superblocks of 256 fit) and `trained`, a small model of our own (benchmarks/train_small.py).
Everything is calibrated on the same windows, those that `edge convert --calibrate` takes of what ships (for the
importance matrix as a text), and evaluated on two texts of other domains, teacher-forced in the artifact's own
runtime by edge.evaluate, so that nothing is fitted to the test.

With --tasks NAME (a set that edge ships: arithmetic, knowledge, reading) the same artifacts also answer questions.

Results are appended to WORK/results.jsonl, one line for every (model, contender, test); a rerun goes on where
the last one ended. The table is Markdown on stdout.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks import results
from benchmarks.contenders import CONTENDERS, Contender, Subject
from benchmarks.llama_tools import llama_tools
from benchmarks.quality_measures import on_task, on_text
from benchmarks.quality_table import table
from benchmarks.texts import write_texts
from benchmarks.train_small import train_small
from benchmarks.twins import DEFAULT, TWINS, write_twin
from converters.checkpoint import Checkpoint
from converters.errors import EdgeError
from converters.models import describe
from edge import tasks
from edge.calibration_text import read_text
from edge.evaluate import CheckpointReference
from edge.sources import resolve

MODELS = ("rotated", "permuted", "trained")
TEXTS = ("technical", "fiction")
WINDOWS = 16
CHARACTERS = 200_000
"""Of each text; what the windows take is less."""


def checkpoint_of(name: str, work: Path) -> Path:
    """The checkpoint of a model of the table, made under `work` where it is missing."""
    directory = work / "models" / name
    if (directory / "config.json").exists():
        return directory
    if name in TWINS:
        write_twin(resolve(DEFAULT).directory, directory, name)
    else:
        train_small(write_texts(work / "texts")["training"], directory)
    return directory


def windows_text(checkpoint: Path, file: Path) -> Path:
    """What edge calibrates this model on, written to `file` as text."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with Checkpoint.open(checkpoint) as opened:
            windows = read_text(None, checkpoint, describe(opened)).windows
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        file.write_text("\n\n".join(tokenizer.decode_batch(windows.tolist(), skip_special_tokens=False)))
    return file


def missing(
    done: list[dict[str, Any]], model: str, contenders: list[Contender], tests: list[str], windows: int
) -> Iterator[tuple[Contender, list[str]]]:
    """(contender, tests it has no result for yet)."""
    have = {(r["model"], r["contender"], r["scope"], r["test"], r["windows"]) for r in done}
    for contender in contenders:
        left = [t for t in tests if (model, contender.name, contender.scope, t, windows) not in have]
        if left:
            yield contender, left


def run(subject: Subject, contenders: list[Contender], options: argparse.Namespace) -> None:
    """Make and measure what is missing of one model. A contender that cannot be made is told on stderr."""
    texts = {
        name: file.read_text()[:CHARACTERS] for name, file in write_texts(options.work / "texts").items()
    }
    tests = [*options.texts, *options.tasks]
    todo = list(missing(results.read(options.work), subject.name, contenders, tests, options.windows))
    if not todo:
        return
    with Checkpoint.open(subject.checkpoint) as checkpoint:
        reference = CheckpointReference(checkpoint, name=subject.name)
        for contender, names in todo:
            folder = Path(tempfile.mkdtemp(dir=subject.work))
            try:
                made = contender.make(subject, folder)
                for name in names:
                    row = {
                        "model": subject.name,
                        "contender": contender.name,
                        "scope": contender.scope,
                        "test": name,
                        "windows": options.windows,
                        "linear_bits": made.linear_bits,
                        "file_bytes": made.file_bytes,
                    }
                    if name in texts:
                        row |= on_text(made, reference, texts[name], options.windows, options.threads)
                    else:
                        row |= on_task(made, name, options.threads)
                    results.append(options.work, row)
                    shown = row.get("kl_mean") or row["accuracy"]
                    print(
                        f"{subject.name} {contender.scope}:{contender.name} {name} {shown[0]:.4f}",
                        file=sys.stderr,
                    )
            except (EdgeError, RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
                print(f"{subject.name}: no {contender.scope}:{contender.name}: {error}", file=sys.stderr)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".bench/quality"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=[*MODELS, "wide"])
    parser.add_argument("--only", action="append", help="contenders by SCOPE:NAME, a shell pattern")
    parser.add_argument("--texts", nargs="+", default=list(TEXTS))
    parser.add_argument("--tasks", nargs="+", default=[], choices=tasks.shipped())
    parser.add_argument("--windows", type=int, default=WINDOWS, help="of 512 tokens, from each text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    options = parser.parse_args()
    options.work = options.work.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    patterns = options.only or ["*"]
    contenders = [c for c in CONTENDERS if any(fnmatch(f"{c.scope}:{c.name}", p) for p in patterns)]
    for name in [] if options.table else options.models:
        checkpoint = checkpoint_of(name, options.work)
        subject = Subject(
            name=name,
            checkpoint=checkpoint,
            work=options.work / "artifacts" / name,
            tools=llama_tools(options.work.parent),
            calibration=windows_text(checkpoint, options.work / "artifacts" / name / "calibration.txt"),
            threads=options.threads,
        )
        run(subject, contenders, options)
    rows = [r for r in results.read(options.work) if r["windows"] == options.windows]
    print(table(rows, options.models, options.texts))


if __name__ == "__main__":
    main()
