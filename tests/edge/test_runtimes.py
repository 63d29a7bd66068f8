"""Every engine keeps the protocol: the same logits however the tokens come, LongRoPE's switch included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import CheckpointError, UnsupportedError
from edge import runtimes
from edge.runtimes import Runtime, open_runtime
from edge.runtimes.longrope import switch_length
from tests.edge.engines import ENGINES, SWITCH, largest, random_ids, write_variant

Tiny = Callable[..., Path]

# Float32 in both engines; chunks of other sizes sum in another order (measured: 2e-5). At 4,100 positions the
# wrong LongRoPE factors move logits by 2 to 5.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def variants(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("variants")
    return {engine: write_variant(engine, tiny("phi4-mini"), directory, context=4352) for engine in ENGINES}


@pytest.fixture(params=ENGINES)
def variant(request: pytest.FixtureRequest, variants: dict[str, Path]) -> Path:
    return variants[request.param]


@pytest.fixture
def runtime(variant: Path) -> Iterator[Runtime]:
    opened = open_runtime(variant, threads=1, exact=True)
    yield opened
    opened.close()


def test_logits_do_not_depend_on_how_the_tokens_come(runtime: Runtime) -> None:
    ids = random_ids(600)
    whole = runtime.teacher_forced(ids)
    assert whole.shape == (600, runtime.vocab_size)
    assert whole.dtype == np.float32
    # The last positions alone: fewer rows through the last matrix, which may sum in another order.
    assert largest(runtime.teacher_forced(ids, first=550) - whole[550:]) < TOLERANCE
    runtime.rewind(0)
    for start, stop in ((0, 1), (1, 40), (40, 555), (555, 600)):
        assert largest(runtime.append(ids[start:stop]) - whole[stop - 1]) < TOLERANCE
        assert runtime.position == stop
    other = random_ids(5, seed=1)
    runtime.rewind(300)
    rewound = runtime.append(other)
    assert largest(rewound - runtime.teacher_forced([*ids[:300], *other])[-1]) < TOLERANCE


def test_a_sequence_that_does_not_fit_is_refused_and_changes_nothing(variant: Path) -> None:
    runtime = open_runtime(variant, context_length=20, threads=1, exact=True)
    ids = random_ids(20)
    runtime.append(ids[:15])
    with pytest.raises(UnsupportedError, match=r"15 \+ 6 tokens do not fit a context of 20"):
        runtime.append(random_ids(6))
    assert runtime.position == 15
    logits = runtime.append(ids[15:])
    assert runtime.position == runtime.context_length == 20
    assert largest(logits - runtime.teacher_forced(ids)[-1]) < TOLERANCE
    runtime.close()


def test_longrope_across_its_switch_is_a_fresh_prefill_of_every_length(runtime: Runtime) -> None:
    ids = random_ids(4110)
    below, above = runtime.teacher_forced(ids[:SWITCH])[-10:], runtime.teacher_forced(ids)[-20:]
    wanted = np.concatenate([below[4:], above[6:]])  # lengths 4,091 to 4,110
    assert largest(below[-1] - above[5]) > 0.1  # or nothing would be shown
    runtime.rewind(0)
    runtime.append(ids[:4090])
    stepwise = np.stack([runtime.append([i]) for i in ids[4090:]])
    assert largest(stepwise - wanted) < TOLERANCE
    runtime.rewind(4092)  # back to the short side, then across in one piece
    assert largest(runtime.append(ids[4092:4094]) - wanted[3]) < TOLERANCE
    assert largest(runtime.append(ids[4094:4110]) - wanted[-1]) < TOLERANCE


def test_own_context_is_capped_but_can_be_asked_for(variants: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "long"
    shutil.copytree(variants["onnx"], folder)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["context_length"] = config["search"]["max_length"] = 131072
    (folder / "genai_config.json").write_text(json.dumps(config))
    runtime = open_runtime(folder)
    assert runtime.context_length == runtimes.DEFAULT_CONTEXT
    runtime.close()
    for path, limit in ((folder, 131072), (variants["gguf"], 4352)):
        with pytest.raises(UnsupportedError, match=f"allows 1 to {limit}"):
            open_runtime(path, context_length=limit + 1)


TEXTS = [
    "Hello, world",
    "naïve 🙂 日本語",
    "a\tb  c\n",
    "<|end|> typed by a person",
    "def f(x):\n    return x",
]


@pytest.mark.parametrize("shape", ["phi4-mini", "phi3-mini-4k"])
@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_are_the_bytes_of_the_text(shape: str, engine: str, tiny: Tiny, tmp_path: Path) -> None:
    """Byte-level BPE and byte-fallback (SentencePiece) vocabularies, which may put a space in front."""
    runtime = open_runtime(write_variant(engine, tiny(shape), tmp_path, context=256))
    for text in TEXTS:
        ids = runtime.encode(text, special=False)
        data = b"".join(runtime.token_bytes(i) for i in ids).decode()
        assert data.removeprefix(" ") == text
    dialect = runtime.dialect()
    end = runtime.encode("<|end|>", special=True)
    assert len(end) == 1
    assert set(end) <= dialect.stop_ids
    assert runtime.token_bytes(end[0]) == b""
    assert "<|end|>" in dialect.special_texts
    runtime.close()


@pytest.mark.parametrize("shape", ["phi4-mini", "phi3-mini-4k"])
def test_both_engines_say_the_same_of_one_checkpoint(shape: str, tiny: Tiny, tmp_path: Path) -> None:
    """A bundle's variants are given the very same prompt."""
    onnx_side, gguf_side = (
        open_runtime(write_variant(engine, tiny(shape), tmp_path, context=256)) for engine in ENGINES
    )
    first, second = onnx_side.dialect(), gguf_side.dialect()
    assert first.template == second.template
    assert (first.stop_ids, first.prefix) == (second.stop_ids, second.prefix)
    text = "<|user|>\nHi there <|end|>\n<|assistant|>\n"
    assert onnx_side.encode(text, special=True) == gguf_side.encode(text, special=True)


def test_stop_tokens_are_gathered_from_every_file(variants: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "stops"
    shutil.copytree(variants["onnx"], folder)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = [7, 8]
    (folder / "genai_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": [9, 10]}')
    runtime = open_runtime(folder)
    assert {7, 8, 9, 10} <= runtime.dialect().stop_ids
    runtime.close()


def _graph(path: Path, *, constant: int | None, branch: str) -> Path:
    """The shape of a LongRoPE choice: `Greater(total, original)`, then If (genai's builder) or Where (ours)."""
    value = helper.make_tensor("original", TensorProto.INT64, [], [constant or 0])
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Greater", ["total", "original" if constant else "total"], ["long"])]
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = helper.make_node("Identity", ["total"], [name])
        branches[name] = helper.make_graph([inner], name, [], [info(name, TensorProto.INT64, [])])
    if branch == "If":
        nodes.append(helper.make_node("If", ["long"], ["out"], **branches))
    else:
        nodes.append(helper.make_node("Where", ["long", "total", "total"], ["out"]))
    inputs, outputs = [info("total", TensorProto.INT64, [])], [info("out", TensorProto.INT64, [])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [value])), str(path))
    return path


def test_the_switch_is_read_from_the_graph_and_never_guessed(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    assert switch_length(_graph(file, constant=4096, branch="If")) == 4096
    assert switch_length(_graph(file, constant=8192, branch="Where")) == 8192
    assert switch_length(_graph(file, constant=1, branch="Where")) is None
    with pytest.raises(UnsupportedError, match="branches on a length"):
        switch_length(_graph(file, constant=None, branch="If"))


def test_damaged_artifacts_are_an_error_of_one_line(variants: dict[str, Path], tmp_path: Path) -> None:
    broken = {"genai_config.json": "{", "model.onnx": "garbage", "tokenizer.json": '{"model": 1}'}
    for name, text in broken.items():
        folder = tmp_path / name
        shutil.copytree(variants["onnx"], folder)
        (folder / name).write_text(text)
        with pytest.raises(UnsupportedError, match=name) as error:
            open_runtime(folder)
        assert "\n" not in error.value.cause
    (folder / "genai_config.json").write_text('{"model": {}}')
    with pytest.raises(UnsupportedError, match="KeyError"):
        open_runtime(folder)
    data = variants["gguf"].read_bytes()
    for size in (4, 100, 5000, len(data) - 1000):
        (tmp_path / "cut.gguf").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            open_runtime(tmp_path / "cut.gguf")


def test_a_file_that_makes_ggml_give_up_ends_in_two_lines(variants: dict[str, Path], tmp_path: Path) -> None:
    data = variants["gguf"].read_bytes()
    at = data.index(b"phi3.block_count") + len(b"phi3.block_count") + 4
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(data[:at] + (1 << 20).to_bytes(4, "little") + data[at + 4 :])
    code = (
        f"from pathlib import Path; from edge.runtimes import open_runtime; open_runtime(Path({str(bad)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: llama.cpp gave up: ")
    assert second.startswith("hint: ")


def test_a_path_without_an_engine_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not exist"):
        open_runtime(tmp_path / "nothing")
    (tmp_path / "file.gguf").write_text("no magic")
    with pytest.raises(UnsupportedError, match="no engine runs this"):
        open_runtime(tmp_path / "file.gguf")


def test_without_llama_cpp_the_extra_is_named(
    variants: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UnsupportedError) as error:
        open_runtime(variants["gguf"])
    assert error.value.hint == "pip install llama-cpp-python==0.3.36"


class _Outside:
    """An engine of another package: takes .toy files."""

    @staticmethod
    def accepts(path: Path) -> bool:
        return path.suffix == ".toy"

    @staticmethod
    def load(path: Path, **options: object) -> str:
        return f"{path.name} {sorted(options)}"


def test_an_outside_package_adds_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("toy", f"{__name__}:_Outside", "edge.runtimes")
    monkeypatch.setattr(runtimes, "entry_points", lambda group: [entry] if group == "edge.runtimes" else [])
    assert runtimes.accepts(Path("model.toy"))
    assert str(open_runtime(Path("model.toy"))) == "model.toy ['context_length', 'exact', 'settings']"


def test_a_prompt_may_end_with_the_padding_token(runtime: Runtime, variant: Path) -> None:
    """onnxruntime-genai masks padding tokens that end a first prompt: logits off by 4."""
    config = variant / "genai_config.json"
    padding = json.loads(config.read_text())["model"]["pad_token_id"] if config.is_file() else 5
    ids = [*random_ids(20), padding, *random_ids(20, seed=1)]
    whole = runtime.teacher_forced(ids)
    runtime.rewind(0)
    assert largest(runtime.append(ids[:21]) - whole[20]) < TOLERANCE
    assert largest(runtime.append(ids[21:]) - whole[-1]) < TOLERANCE
