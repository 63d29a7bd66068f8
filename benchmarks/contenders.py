"""Who stands in the quality table, and how each artifact is made. One more contender is one more line.

Two comparisons. `linear`: embedding, output and norms stay float32 and only the linear layers are quantized,
so that formats meet at equal bits whatever a tool does with the rest. `file`: the whole artifact as its tool
writes it. Incumbents with `+imatrix` have seen the same calibration text as ours.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from gguf import GGMLQuantizationType as GgmlType

from benchmarks.convert import BUILDER, TORCH, environment
from benchmarks.ggml import bits, round_trip
from benchmarks.gguf_weights import Floats, importances, linear_bits, linear_weights, with_linear
from benchmarks.llama_tools import run_tool
from benchmarks.measure import size

Scope = Literal["linear", "file"]
_CHOSEN = re.compile(r"\[ *\d+/ *\d+\] (\S+) .*-> .*\((\w+)\)")
_FALLBACK = re.compile(r"warning: (\S+) .*\(required for type +(\w+)\)")


@dataclass(frozen=True)
class Made:
    """An artifact to evaluate. linear_bits: per weight of the linear layers; None where it was not measured."""

    path: Path
    linear_bits: float | None
    file_bytes: int | None


@dataclass(frozen=True)
class Subject:
    """A model of the table: its checkpoint, and what several contenders need of it, made once under `work`."""

    name: str
    checkpoint: Path
    work: Path
    tools: Path
    calibration: Path
    threads: int

    def convert(self, folder: str, *options: str) -> Path:
        """A GGUF that edge makes, without the proof: the table measures more than it."""
        bundle = self.work / folder
        if not bundle.exists():
            edge = str(Path(sys.executable).with_name("edge"))
            command = [edge, "convert", str(self.checkpoint), "--target", "android", "--no-proof", *options]
            subprocess.run([*command, "-o", str(bundle)], check=True, stdout=subprocess.DEVNULL)
        return next(bundle.rglob("*.gguf"))

    @cached_property
    def float_file(self) -> Path:
        return self.convert("f32", "--precision", "f32")

    @cached_property
    def importance_file(self) -> Path:
        file = self.work / "imatrix.gguf"
        if not file.exists():
            part = file.with_suffix(".part.gguf")
            arguments = ["-m", str(self.float_file), "-f", str(self.calibration), "-o", str(part)]
            settings = ["-c", "512", "-t", str(self.threads), "--no-ppl", "--parse-special"]
            run_tool(self.tools, "llama-imatrix", *arguments, *settings, log=self.work / "imatrix.log")
            part.rename(file)
        return file

    @cached_property
    def importance(self) -> dict[str, Floats]:
        return importances(self.importance_file)

    def quantize(self, kind: str, *, imatrix: bool, target: Path, dry: bool = False) -> str:
        """Run llama-quantize on the float file; returns what it printed."""
        options = ["--imatrix", str(self.importance_file)] if imatrix else []
        if dry:
            options.append("--dry-run")
        arguments = [*options, str(self.float_file), str(target), kind, str(self.threads)]
        return run_tool(self.tools, "llama-quantize", *arguments, log=target.with_suffix(".log"))


@dataclass(frozen=True)
class Contender:
    """`make` writes into an empty folder, which is removed after the evaluation."""

    name: str
    scope: Scope
    make: Callable[[Subject, Path], Made]


def _pure(kind: GgmlType, *, imatrix: bool = False) -> Callable[[Subject, Path], Made]:
    """Every linear layer in one format."""

    def make(subject: Subject, folder: Path) -> Made:
        importance = subject.importance if imatrix else {}
        target = folder / "linear.gguf"
        with_linear(
            subject.float_file, target, lambda name, rows: round_trip(rows, kind, importance.get(name))
        )
        return Made(target, bits(kind), None)

    return make


def _mix(kind: str, *, imatrix: bool = False) -> Callable[[Subject, Path], Made]:
    """The formats that llama-quantize chooses for a mix such as Q4_K_M, before it falls back for short rows."""

    def make(subject: Subject, folder: Path) -> Made:
        printed = subject.quantize(kind, imatrix=imatrix, target=folder / "dry.gguf", dry=True)
        kinds = chosen_types(printed)
        importance = subject.importance if imatrix else {}
        spent = weights = 0.0

        def values(name: str, rows: Floats) -> Floats:
            nonlocal spent, weights
            spent += bits(kinds[name]) * rows.size
            weights += rows.size
            return round_trip(rows, kinds[name], importance.get(name))

        with_linear(subject.float_file, folder / "linear.gguf", values)
        return Made(folder / "linear.gguf", spent / weights, None)

    return make


def chosen_types(printed: str) -> dict[str, GgmlType]:
    """Tensor name -> the format that llama-quantize wanted, from what its dry run printed."""
    kinds = dict(_CHOSEN.findall(printed)) | dict(_FALLBACK.findall(printed))
    return {name: GgmlType[kind.upper()] for name, kind in kinds.items()}


def _whole(kind: str, *, imatrix: bool = False) -> Callable[[Subject, Path], Made]:
    """The file that llama-quantize writes."""

    def make(subject: Subject, folder: Path) -> Made:
        target = folder / "whole.gguf"
        subject.quantize(kind, imatrix=imatrix, target=target)
        return Made(target, linear_bits(target), size(target))

    return make


def _edge(*options: str, scope: Scope) -> Callable[[Subject, Path], Made]:
    """The GGUF that `edge convert` writes; for `linear`, its linear layers in the float file."""

    def make(subject: Subject, folder: Path) -> Made:
        file = subject.convert("-".join(["edge", *(o.strip("-") for o in options)]), *options)
        if scope == "file":
            return Made(file, linear_bits(file), size(file))
        stored = dict(linear_weights(file))
        with_linear(subject.float_file, folder / "linear.gguf", lambda name, _: stored[name])
        return Made(folder / "linear.gguf", linear_bits(file), None)

    return make


def _builder(algorithm: str) -> Callable[[Subject, Path], Made]:
    """onnxruntime-genai's model builder in an environment of its own."""

    def make(subject: Subject, folder: Path) -> Made:
        python = environment(subject.work.parent / "env-genai", [TORCH], BUILDER)
        out = folder / "builder"
        options = ["-p", "int4", "-e", "cpu", "--extra_options", f"algo_config={algorithm}"]
        command = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(subject.checkpoint)]
        cache = ["-c", str(folder / "cache")]
        subprocess.run([*command, "-o", str(out), *cache, *options], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return Made(out, None, size(out))

    return make


def _float(subject: Subject, folder: Path) -> Made:
    file = subject.convert("f16", "--precision", "f16")
    return Made(file, linear_bits(file), size(file))


_Q = GgmlType
CONTENDERS = [
    Contender("Q4_0", "linear", _pure(_Q.Q4_0)),
    Contender("Q4_K +imatrix", "linear", _pure(_Q.Q4_K, imatrix=True)),
    Contender("Q4_K_M +imatrix", "linear", _mix("Q4_K_M", imatrix=True)),
    Contender("Q5_K_M +imatrix", "linear", _mix("Q5_K_M", imatrix=True)),
    Contender("Q5_K_M", "linear", _mix("Q5_K_M")),
    Contender("Q4_K_M", "linear", _mix("Q4_K_M")),
    Contender("Q6_K", "linear", _pure(_Q.Q6_K)),
    Contender("IQ4_XS +imatrix", "linear", _mix("IQ4_XS", imatrix=True)),
    Contender("edge int4 rtn", "linear", _edge("--precision", "int4", scope="linear")),
    Contender("edge int4 calibrated", "linear", _edge("--precision", "int4", "--calibrate", scope="linear")),
    Contender("edge 5 bits", "linear", _edge("--bits-per-weight", "5", scope="linear")),
    Contender(
        "edge 5 bits calibrated", "linear", _edge("--bits-per-weight", "5", "--calibrate", scope="linear")
    ),
    Contender("Q4_0 +imatrix", "linear", _mix("Q4_0", imatrix=True)),
    Contender("Q4_K", "linear", _pure(_Q.Q4_K)),
    Contender("IQ4_XS", "linear", _mix("IQ4_XS")),
    Contender("Q5_0", "linear", _pure(_Q.Q5_0)),
    Contender("Q8_0", "linear", _pure(_Q.Q8_0)),
    Contender("f16", "file", _float),
    Contender("Q8_0", "file", _whole("Q8_0")),
    Contender("Q6_K", "file", _whole("Q6_K")),
    Contender("Q5_K_M", "file", _whole("Q5_K_M")),
    Contender("Q5_K_M +imatrix", "file", _whole("Q5_K_M", imatrix=True)),
    Contender("Q4_K_M", "file", _whole("Q4_K_M")),
    Contender("Q4_K_M +imatrix", "file", _whole("Q4_K_M", imatrix=True)),
    Contender("IQ4_XS", "file", _whole("IQ4_XS")),
    Contender("IQ4_XS +imatrix", "file", _whole("IQ4_XS", imatrix=True)),
    Contender("Q4_0", "file", _whole("Q4_0")),
    Contender("Q4_0 +imatrix", "file", _whole("Q4_0", imatrix=True)),
    Contender("genai builder rtn", "file", _builder("rtn")),
    Contender("genai builder k_quant", "file", _builder("k_quant")),
    Contender("genai builder k_quant_mixed", "file", _builder("k_quant_mixed")),
    Contender("edge int4 rtn", "file", _edge("--precision", "int4", scope="file")),
    Contender("edge int4 calibrated", "file", _edge("--precision", "int4", "--calibrate", scope="file")),
    Contender("edge 5 bits", "file", _edge("--bits-per-weight", "5", scope="file")),
    Contender("edge 5 bits calibrated", "file", _edge("--bits-per-weight", "5", "--calibrate", scope="file")),
]
