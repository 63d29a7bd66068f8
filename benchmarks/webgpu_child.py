"""Run a decoder graph on onnxruntime's WebGPU provider: the half of `benchmarks.webgpu` in its own environment.

    python webgpu_child.py DIRECTORY

DIRECTORY holds model.onnx in float32 and ids.npy, int64 [tokens]. Writes logits.npy, float32 [tokens, vocabulary], one
token a run, and prefill.npy, all tokens in one run; prints one line of JSON: the providers of the session and, by
provider, how many nodes of each operator its profile saw in one run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

PROVIDERS = ["WebGpuExecutionProvider", "CPUExecutionProvider"]
_TRANSFERS = ("MemcpyFromHost", "MemcpyToHost")


def session(model: Path, profile: str = "") -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = bool(profile)
    options.profile_file_prefix = profile
    return ort.InferenceSession(str(model), options, providers=PROVIDERS)


def run(opened: Any, ids: np.ndarray[Any, Any], step: int) -> np.ndarray[Any, Any]:
    """Logits of every position, `step` tokens a run, the cache fed back."""
    past = [each for each in opened.get_inputs() if each.name.startswith("past_key_values")]
    cache = {each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32) for each in past}
    logits = []
    for start in range(0, len(ids), step):
        stop = min(start + step, len(ids))
        feeds = {
            "input_ids": ids[None, start:stop],
            "position_ids": np.arange(start, stop)[None],
            "attention_mask": np.ones((1, stop), np.int64),
        }
        found, *present = opened.run(None, {**feeds, **cache})
        cache = dict(zip(cache, present, strict=True))
        logits.append(found[0])
    return np.concatenate(logits)


def nodes(model: Path, ids: np.ndarray[Any, Any]) -> dict[str, dict[str, int]]:
    """By provider and operator, what one run of one token executed; copies between the two left out."""
    with tempfile.TemporaryDirectory() as directory:
        opened = session(model, f"{directory}/profile")
        run(opened, ids[:1], 1)
        events = json.loads(Path(opened.end_profiling()).read_text())
    found: dict[str, Counter[str]] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments and arguments["op_name"] not in _TRANSFERS:
            found.setdefault(arguments["provider"], Counter())[arguments["op_name"]] += 1
    return {provider: dict(sorted(counted.items())) for provider, counted in found.items()}


def main(directory: Path) -> None:
    ids = np.load(directory / "ids.npy")
    opened = session(directory / "model.onnx")
    np.save(directory / "logits.npy", run(opened, ids, 1))
    np.save(directory / "prefill.npy", run(opened, ids, len(ids)))
    answer = {"version": ort.__version__, "providers": opened.get_providers()}
    print(json.dumps({**answer, "nodes": nodes(directory / "model.onnx", ids)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
