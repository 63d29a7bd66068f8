"""`edge eval`: what it prints, and texts, tasks and artifacts that it cannot use."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import numpy as np

from converters.checkpoint import Checkpoint
from edge.evaluation.answers import Answerer
from edge.evaluation.engine import Engine
from edge.evaluation.reference import CheckpointReference
from edge.evaluation.windows import cut
from edge.progress import Silent
from edge.proof import TEXT
from tests.edge.engines import Scripted, not_a_number, write_variant
from tests.messages import World, case
from tests.messages.inspection import bundle

SHORT = ("--length", "32", "--windows", "2", "--threads", "1")


@case
def nothing_to_evaluate(world: World) -> None:
    world.edge("eval")
    world.edge("eval", "nowhere", "--text", TEXT)
    bundle(world, "cpu")
    world.edge("eval", "b")
    world.edge("eval", "b", "--text", "none.txt")
    world.edge("eval", "b", "--tasks", "geography")
    world.edge("eval", "b", "--against", "nowhere", "--text", TEXT)


@case
def variants_that_nothing_runs(world: World) -> None:
    next(bundle(world, "android").glob("*.gguf")).unlink()
    world.edge("eval", "b", "--text", TEXT)


@case
def texts_that_cannot_be_used(world: World) -> None:
    bundle(world, "cpu")
    for name, data in {"empty": b"", "short": b"one two three", "latin": "naïve".encode("latin-1")}.items():
        (world.path / f"{name}.txt").write_bytes(data)
        world.edge("eval", "b", "--text", f"{name}.txt", "--threads", "1")
    world.call(cut, range(20), length=32, bos=None, most=None, name="note.txt")
    world.edge("eval", "b", "--text", TEXT, "--length", "2", "--threads", "1")
    world.edge("eval", "b", "--text", TEXT, "--length", "99999", "--threads", "1")


@case
def task_files_that_are_broken(world: World) -> None:
    bundle(world, "cpu")
    good = '{"kind": "number", "prompt": "1 + 1 =", "answer": 2}\n'
    for name, text in {
        "cut": good + '{"kind": "number", "prompt": "1 +',
        "kind": good * 2 + '{"kind": "song"}',
        "index": good + '{"kind": "choice", "question": "?", "choices": ["a", "b"], "answer": 2}',
        "empty": "",
    }.items():
        (world.path / f"{name}.jsonl").write_text(text)
        world.edge("eval", "b", "--tasks", f"{name}.jsonl")


@case
def another_model(world: World) -> None:
    bundle(world, "cpu")
    world.edge("eval", "b", "--against", world.tiny("phi3-mini-4k"), "--text", TEXT, *SHORT)
    world.copy("phi4", vocab_size=704)
    world.quietly("convert", "checkpoint", "-t", "cpu", "-o", "c", "--no-proof", "--threads", "1")
    world.edge("eval", "b", "--against", "c", "--text", TEXT, *SHORT)


@case
def logits_that_are_no_numbers(world: World) -> None:
    made = write_variant("gguf", world.path / world.tiny(), world.path, context=256)
    not_a_number(made, world.path / "x.gguf")
    world.edge("eval", "x.gguf", "--text", TEXT, *SHORT)
    scripted = Scripted([b"a"])
    wrong = np.full(scripted.vocab_size, np.nan, np.float32)
    with mock.patch.object(scripted, "append", return_value=wrong):
        world.call(Answerer(scripted).answer, {"prompt": "?"})


@case
def embedding_smaller_than_its_tokenizer(world: World) -> None:
    copied = shutil.copytree(world.path / world.tiny("phi4"), world.path / "small")
    with Checkpoint.open(copied) as checkpoint:
        reference = CheckpointReference(checkpoint)
        windows = cut([9999] * 32, length=32, bos=None, most=None, name="t")
        world.call(reference.prepare, [windows], Silent())


@case
def engine_that_dies(world: World) -> None:
    engine = Engine(bundle(world, "cpu") / "onnx-int4", name="x", length=32)
    with engine:
        engine._process.kill()
        world.call(engine.encode, "hello")
    with mock.patch("sys.executable", "/bin/false"):
        world.call(Engine, Path("b"), name="x", length=32)
