"""edge beside the incumbents on one checkpoint, in one run: `python -m benchmarks.convert [--work DIR]`.

Contenders, each in an environment of its own, each reading the checkpoint from a cold page cache:
- edge: Q4_0 GGUF and int4 ONNX in one pass, without the proof (the others have none);
- onnxruntime-genai's model builder: int4 ONNX;
- llama.cpp's converter (f16 GGUF) and then its quantizer (Q4_0), from the source that llama-cpp-python carries;
- a plain file copy with fsync: what the disk can do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks.measure import Cost, forget, measure, size
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from edge.sources import resolve

TORCH = "torch==2.13.0"
BUILDER = [
    "onnxruntime==1.32.0",
    "onnxruntime-genai==0.18.0",
    "transformers==5.23.0",
    "onnx==1.23.2",
    "onnx-ir==1.1.0",
]
LLAMA = "llama-cpp-python==0.3.36"
CONVERTER = ["transformers==5.23.0", "gguf==0.19.0", "sentencepiece", "safetensors", "protobuf"]
COPY = """
import os, shutil, sys
for name in os.listdir(sys.argv[1]):
    shutil.copyfile(os.path.join(sys.argv[1], name), os.path.join(sys.argv[2], name))
    with open(os.path.join(sys.argv[2], name), "rb") as f:
        os.fsync(f.fileno())
"""
QUANTIZE = """
import ctypes, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


def make_checkpoint(directory: Path, shape: str) -> None:
    """Random weights under the embedded default's tokenizer: llama.cpp's converter refuses one it does not know."""
    config = SHAPES[shape] | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    write_checkpoint(directory, config, shards=2, tokenizer=None)
    source = resolve("smollm2-135m-instruct").directory
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "GPT2Tokenizer"  # what Phi-4-mini has, and what the converter looks for
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    shutil.copyfile(source / "chat_template.jinja", directory / "chat_template.jinja")
    shutil.copyfile(source / "tokenizer.json", directory / "tokenizer.json")


def environment(folder: Path, *packages: list[str]) -> Path:
    """A virtual environment with `packages`, made once; returns its python."""
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for group in packages:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *group], check=True)
        (folder / "done").touch()
    return python


def llama_source(work: Path) -> Path:
    """llama.cpp's source tree out of the llama-cpp-python source distribution."""
    folder = work / "llama-source"
    if not folder.exists():
        command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", LLAMA, "-d", str(work)]
        subprocess.run([sys.executable, "-m", *command], check=True)
        with tarfile.open(next(work.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(work / "unpacked", filter="data")
        next((work / "unpacked").iterdir()).joinpath("vendor", "llama.cpp").rename(folder)
    return folder


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_edge(checkpoint: Path, work: Path) -> Cost:
    out = work / "out-edge"
    shutil.rmtree(out, ignore_errors=True)
    forget(checkpoint)
    edge = str(Path(sys.executable).with_name("edge"))
    command = [
        edge,
        "convert",
        str(checkpoint),
        "--target",
        "android",
        "--target",
        "cpu",
        "--no-proof",
        "-o",
        str(out),
    ]
    return measure(command, log=work / "edge.log")


def run_builder(checkpoint: Path, work: Path) -> Cost:
    python = environment(work / "env-genai", [TORCH], BUILDER)
    out = empty(work / "out-builder")
    forget(checkpoint)
    command = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out)]
    cache = ["-c", str(work / "builder-cache")]
    return measure([*command, "-p", "int4", "-e", "cpu", *cache], log=work / "builder.log")


def run_llama(checkpoint: Path, work: Path) -> tuple[Cost, Cost]:
    python = environment(work / "env-llama", [TORCH], CONVERTER)
    source = llama_source(work)
    out = empty(work / "out-llama")
    forget(checkpoint)
    script = [str(python), str(source / "convert_hf_to_gguf.py"), str(checkpoint), "--outtype", "f16"]
    path = {"PYTHONPATH": str(source / "gguf-py"), "NO_LOCAL_GGUF": "0"}
    convert = measure([*script, "--outfile", str(out / "f16.gguf")], log=work / "llama.log", env=path)
    files = [str(out / "f16.gguf"), str(out / "q4_0.gguf")]
    return convert, measure([sys.executable, "-c", QUANTIZE, *files], log=work / "quantize.log")


def run_copy(checkpoint: Path, work: Path) -> Cost:
    out = empty(work / "out-copy")
    forget(checkpoint)
    cost = measure([sys.executable, "-c", COPY, str(checkpoint), str(out)], log=work / "copy.log")
    shutil.rmtree(out)
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path(".bench"), help="folder for environments and outputs"
    )
    parser.add_argument("--shape", default="1b", choices=sorted(SHAPES))
    parser.add_argument("--only-edge", action="store_true", help="edge and the file copy alone")
    args = parser.parse_args()
    work: Path = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / args.shape
    if not (checkpoint / "tokenizer.json").exists():
        make_checkpoint(checkpoint, args.shape)
    megabytes = size(checkpoint) / 1e6
    print(f"checkpoint {args.shape}: {megabytes:.0f} MB, {os.cpu_count()} cores", flush=True)

    # Turn about, and the best of each: a shared disk has moods.
    rounds = [(run_copy(checkpoint, work), run_edge(checkpoint, work)) for _ in range(3)]
    copy, edge = (min(costs, key=lambda c: c.seconds) for costs in zip(*rounds, strict=True))
    print(f"{'contender':34} {'seconds':>8} {'x edge':>7} {'peak MiB':>9} {'x edge':>7} {'read MB/s':>10}")

    def row(name: str, cost: Cost) -> None:
        print(
            f"{name:34} {cost.seconds:8.1f} {cost.seconds / edge.seconds:7.1f} {cost.peak_mib:9.0f} "
            f"{cost.peak_bytes / edge.peak_bytes:7.1f} {megabytes / cost.seconds:10.0f}",
            flush=True,
        )

    row("edge: Q4_0 GGUF + int4 ONNX", edge)
    row("file copy", copy)
    print(f"edge reads at {100 * copy.seconds / edge.seconds:.0f} % of the speed of a file copy")
    if args.only_edge:
        return
    row("onnxruntime-genai builder: int4", run_builder(checkpoint, work))
    convert, quantize = run_llama(checkpoint, work)
    row("llama.cpp convert: f16", convert)
    row("llama.cpp quantize: Q4_0", quantize)
    row(
        "llama.cpp convert + quantize",
        Cost(convert.seconds + quantize.seconds, max(convert.peak_bytes, quantize.peak_bytes)),
    )


if __name__ == "__main__":
    main()
