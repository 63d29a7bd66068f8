"""llama.cpp's own tools, built from the source that llama-cpp-python carries: `python -m benchmarks.llama_tools`.

They are what the incumbents' rows of the quality table are made with, and so of the very version that runs
our files. EDGE_LLAMA_TOOLS names a folder that has them already.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from benchmarks.convert import llama_source

TOOLS = ("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench")
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_CURL=OFF",
)


def llama_tools(work: Path, *, jobs: int | None = None) -> Path:
    """The folder of TOOLS, built under `work` once (cmake and a C++ compiler; a quarter of an hour or more)."""
    for folder in (Path(os.environ.get("EDGE_LLAMA_TOOLS", "")), work / "llama-build" / "bin"):
        if all((folder / tool).exists() for tool in TOOLS):
            return folder.absolute()
    source, build = llama_source(work), work / "llama-build"
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *OPTIONS], check=True)
    parallel = ["--parallel", str(jobs or os.cpu_count() or 1)]
    subprocess.run(["cmake", "--build", str(build), *parallel, "--target", *TOOLS], check=True)
    return build.absolute() / "bin"


def run_tool(folder: Path, tool: str, *arguments: str, log: Path) -> str:
    """What the tool printed, also kept in `log`. Raises RuntimeError with the end of it when the tool fails."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [str(folder / tool), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    log.write_text(done.stdout)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-8:])
        raise RuntimeError(f"{tool} exited with {done.returncode}\n{tail}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".bench"))
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()
    print(llama_tools(options.work.absolute(), jobs=options.jobs))


if __name__ == "__main__":
    main()
