"""What is tried for a target's profile, and the artifacts that it takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from benchmarks.convert import make_checkpoint
from edge.runtimes import EngineSettings

MODELS = {"SmolLM2-135M": "smollm2-135m-instruct", "random 0.9B": "1b"}

CONTROL = "nothing"
"""The setting of a candidate that changes nothing: what is measured of it is the noise."""


@dataclass(frozen=True)
class Candidate:
    """A value of a setting, against the one that holds now. `settings` go to the engine, `altered` names an artifact
    that `artifact` makes. `wall`: every core and wall time, else one thread and its processor time."""

    setting: str
    value: str
    against: str
    settings: EngineSettings = field(default_factory=EngineSettings)
    altered: str = ""
    same_answers: bool = True
    wall: bool = False


def candidates(format: str) -> Iterator[Candidate]:
    """For onnxruntime-genai ("onnx") or llama.cpp ("gguf"); `against` are the engine files' own choices."""
    yield Candidate(CONTROL, "as it is", "as it is")
    yield Candidate("threads", "1", "every core", EngineSettings(threads=1), wall=True)
    for batch in (64, 128, 256):
        yield Candidate("batch", str(batch), "512", EngineSettings(batch=batch))
    yield Candidate("embedding and lm_head", "int4", "int8", altered="int4", same_answers=False)
    if format == "onnx":
        yield Candidate("spinning", "false", "true", EngineSettings(spinning=False), wall=True)
        for level in (0, 1):
            yield Candidate("accuracy_level", str(level), "4", altered=f"accuracy{level}", same_answers=False)
        for block in (64, 128):
            yield Candidate("block_size", str(block), "32", altered=f"block{block}", same_answers=False)
        return
    for kind in ("f32", "q8_0", "q4_0"):
        yield Candidate("kv_type", kind, "f16", EngineSettings(kv_type=kind), same_answers=False)
    for flash in (True, False):
        settings = EngineSettings(flash_attention=flash)
        yield Candidate("flash_attention", str(flash).lower(), "llama.cpp's choice", settings)
    yield Candidate("repack", "false", "true", EngineSettings(repack=False))


def artifact(work: Path, model: str, format: str, altered: str = "") -> Path | None:
    """The int4 artifact of a model, converted when it is not there yet; `altered`: int4 (embedding and lm_head too),
    or a graph of it with another accuracy level or block size. None where the block does not divide a row."""
    name = MODELS[model]
    if altered.startswith(("accuracy", "block")):
        base = artifact(work, model, format)
        assert base is not None
        return _altered_graph(base, work / f"{name}-{altered}", altered)
    bundle = work / f"{name}-{altered or 'default'}"
    if not bundle.exists():
        checkpoint = name
        if name == "1b":
            checkpoint = str(work / "checkpoint")
            if not (work / "checkpoint" / "tokenizer.json").exists():
                make_checkpoint(work / "checkpoint", name)
        recipe = work / "int4.json"
        recipe.write_text(json.dumps({"name": "int4", "rules": [_rule("*", "int4")]}))
        extra = ["--recipe", str(recipe)] if altered else []
        targets = ["--target", "cpu", "--target", "android", "--no-proof"]
        edge = str(Path(sys.executable).with_name("edge"))
        subprocess.run([edge, "convert", checkpoint, *targets, *extra, "-o", str(bundle)], check=True)
    found = bundle.glob("*.gguf") if format == "gguf" else bundle.glob("*/genai_config.json")
    return next(file if format == "gguf" else file.parent for file in found)


def _rule(pattern: str, storage: str) -> dict[str, str]:
    return {"pattern": pattern, "storage": storage, "method": "rtn"}


def _altered_graph(base: Path, folder: Path, change: str) -> Path | None:
    """The same data file under another graph. Larger blocks read the same codes and, of the scales, the first ones:
    what comes out means nothing, what it costs does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in base.iterdir():
        if file.name != "model.onnx":
            os.link(file, folder / file.name)
    model = onnx.load(base / "model.onnx", load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "MatMulNBits":
            continue
        if change.startswith("accuracy"):
            attributes["accuracy_level"].i = int(change.removeprefix("accuracy"))
        elif attributes["bits"].i == 4:
            block = int(change.removeprefix("block"))
            if attributes["K"].i % block:
                return None
            attributes["block_size"].i = block
            codes, scales = (tensors[name] for name in node.input[1:3])
            rows, blocks = codes.dims[0], attributes["K"].i // block
            codes.dims[:] = [rows, blocks, block // 2]
            scales.dims[:] = [rows, blocks]
            length = next(entry for entry in scales.external_data if entry.key == "length")
            length.value = str(4 * rows * blocks)
    onnx.save(model, folder / "model.onnx")
    return folder
