"""Pipelines on Qualcomm's emulator through onnxruntime-genai: prompts of every length, turns, and the context's end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.errors import BundleError, UnsupportedError
from converters.verify import divergence
from edge.npu import contexts
from edge.npu.socs import get_socs
from edge.progress import Silent
from edge.runtimes import open_runtime
from edge.runtimes.qnn import QnnRuntime
from tests.converters.npu_support import WINDOW, cosine, expected, write_npu
from tests.converters.onnx_support import random_ids
from tests.edge.npu_emulator import needs_emulator

pytestmark = needs_emulator
Tiny = Callable[..., Path]
CONTEXT = 40
# float16 from end to end, as the issue asks; measured 0.99996 and better. A shifted position gives 0.6.
COSINE = 0.999


class Loaded:
    """A pipeline on the emulator, and what the reference says of one sequence."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        decoder = write_npu(checkpoint, folder, context=CONTEXT)
        self.checkpoint, self.folder = checkpoint, folder
        self.ids = random_ids(decoder, CONTEXT)
        self.reference = expected(checkpoint, self.ids)
        self.runtime = open_runtime(folder)

    def check(self, position: int, row: NDArray[np.float32]) -> None:
        assert cosine(row, self.reference[position]) > COSINE, f"position {position}"

    def feed(self, sizes: Sequence[int]) -> None:
        """Appends of these sizes, one after the other; the last logits of each are compared."""
        self.runtime.rewind(0)
        for size in sizes:
            start = self.runtime.position
            self.check(start + size - 1, self.runtime.append(self.ids[start : start + size]))
            assert self.runtime.position == start + size


@pytest.fixture(scope="module")
def loaded(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tiny("phi4"), tmp_path_factory.mktemp("npu") / "phi4")


@pytest.mark.parametrize("shape", ["phi3-mini-4k", "phi4-mini", "phi4"])
def test_teacher_forced_logits_are_the_references(shape: str, tiny: Tiny, tmp_path: Path) -> None:
    """Full rotary, partial rotary under LongRoPE, and one key-value head; both stages."""
    each = Loaded(tiny(shape), tmp_path / shape)
    found = divergence(each.reference, each.runtime.teacher_forced(each.ids))
    each.runtime.close()
    assert found.cosine > COSINE
    # Random weights have near ties: float16 may turn one of 40.
    assert found.top1 > 0.95
    assert found.kl_mean < 1e-3


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, CONTEXT])
def test_prompts_of_every_length(length: int, loaded: Loaded) -> None:
    loaded.feed([length])


@pytest.mark.parametrize(
    "sizes",
    [
        [5, 1],
        [5, 3],
        [5, 9],
        [3, 20],
        [8, 2],
        [16, 16],
        [1] * 12,
        [7, 1, 1, 14, 2],
        [8, 5, 1, 1],
        [8, 8, 1, 1],
    ],
)
def test_several_turns_of_any_size_keep_their_positions(sizes: list[int], loaded: Loaded) -> None:
    """onnxruntime-genai goes on after a turn's padding: left alone, a second turn answers something else."""
    loaded.feed(sizes)


def test_an_end_of_sequence_between_turns(loaded: Loaded) -> None:
    """onnxruntime-genai takes a token that ends the sequence for its own last one, and runs nothing after it."""
    (end, *_) = loaded.runtime.dialect().stop_ids
    ids = [*loaded.ids[:6], end, *loaded.ids[7:12]]
    reference = expected(loaded.checkpoint, ids)
    loaded.runtime.rewind(0)
    loaded.runtime.append(ids[:5])
    for position in range(5, 12):
        row = loaded.runtime.append([ids[position]])
        assert cosine(row, reference[position]) > COSINE, f"position {position}"


def test_all_logits_of_an_append(loaded: Loaded) -> None:
    loaded.runtime.rewind(0)
    loaded.runtime.append(loaded.ids[:5])
    rows = loaded.runtime.append_all(loaded.ids[5:22])
    assert rows.shape == (17, loaded.runtime.vocab_size)
    for i, row in enumerate(rows):
        loaded.check(5 + i, row)


def test_a_rewind_forgets(loaded: Loaded) -> None:
    loaded.runtime.rewind(0)
    loaded.runtime.append([7] * 4 + loaded.ids[4:20])
    loaded.runtime.rewind(0)
    loaded.runtime.append(loaded.ids[:20])
    loaded.runtime.rewind(11)
    loaded.check(14, loaded.runtime.append(loaded.ids[11:15]))


def test_a_prompt_that_holds_padding_tokens(loaded: Loaded) -> None:
    """The engine counts a prompt's tokens up to the first padding token."""
    for at in ((3,), (0,), (8,), (9, 10), tuple(range(11))):
        ids = list(loaded.ids[:11])
        pad = json.loads((loaded.folder / "genai_config.json").read_text())["model"]["eos_token_id"][-1]
        for i in at:
            ids[i] = pad if i % 2 else 0
        reference = expected(loaded.checkpoint, ids)
        loaded.runtime.rewind(0)
        assert cosine(loaded.runtime.append(ids), reference[-1]) > COSINE, at


def test_the_end_of_the_context_is_reached_rightly_and_not_passed(loaded: Loaded) -> None:
    """From a prompt whose padding takes room, one by one to the last position, and an error that changes nothing."""
    loaded.feed([1] + [1] * (CONTEXT - 1))
    assert loaded.runtime.room == 0
    with pytest.raises(UnsupportedError, match=f"{CONTEXT} \\+ 1 tokens do not fit"):
        loaded.runtime.append([5])
    assert loaded.runtime.position == CONTEXT
    loaded.runtime.rewind(0)
    with pytest.raises(UnsupportedError, match="do not fit"):
        loaded.runtime.append([5] * (CONTEXT + 1))


def test_a_context_beyond_the_cache_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UnsupportedError, match=f"allows 1 to {CONTEXT}"):
        open_runtime(loaded.folder, context_length=CONTEXT + 1)


@pytest.fixture(scope="module")
def compiled(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of context binaries alone, away from the graphs that they were made of."""
    target = tmp_path_factory.mktemp("contexts") / "SM8650"
    (soc,) = get_socs(["sm8650"])
    made = contexts.make_contexts(loaded.folder, target, soc, Silent(), allow_cpu=False)
    for done in made.values():
        assert not done.elsewhere()
        assert {node.operator for node in done.nodes} >= {"GroupQueryAttention", "MatMulNBits"}
    assert not (target / "layers.onnx.data").exists()
    return target


_FRESH = """
import json, sys
from pathlib import Path
import numpy as np
from edge.runtimes import open_runtime
runtime = open_runtime(Path(sys.argv[1]))
np.save(sys.argv[2], runtime.teacher_forced(json.loads(sys.argv[3])))
"""


def test_context_binaries_run_in_a_fresh_process(loaded: Loaded, compiled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FRESH, str(compiled), str(tmp_path / "out.npy"), json.dumps(loaded.ids)]
    subprocess.run(command, check=True, capture_output=True)
    found = divergence(loaded.reference, np.load(tmp_path / "out.npy"))
    assert found.cosine > COSINE
    assert found.kl_mean < 1e-3


def test_stdout_stays_empty_while_the_plugin_loads(compiled: Path, tmp_path: Path) -> None:
    """Qualcomm's libraries print to stdout, which is data here."""
    command = [sys.executable, "-c", _FRESH, str(compiled), str(tmp_path / "out.npy"), "[5, 6]"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert done.stdout == b""


def _copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_flipped_byte_in_a_binary_is_found(compiled: Path, tmp_path: Path) -> None:
    folder = _copied(compiled, tmp_path / "flipped")
    file = folder / "iterator_qnn.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"iterator_qnn\.bin is not the binary that was made"):
        open_runtime(folder)


def test_a_binary_for_another_soc_is_found(loaded: Loaded, compiled: Path, tmp_path: Path) -> None:
    """The emulator itself would run it."""
    (other,) = get_socs(["SM8750"])
    contexts.make_contexts(loaded.folder, tmp_path / "SM8750", other, Silent(), allow_cpu=False)
    folder = _copied(compiled, tmp_path / "mixed")
    for name in ("context.onnx", "context_qnn.bin"):
        (folder / name).write_bytes((tmp_path / "SM8750" / name).read_bytes())
    with pytest.raises(BundleError, match=r"compiled for SM8750, this folder is for SM8650"):
        open_runtime(folder)


def test_an_interrupted_append_leaves_nothing_that_counts_as_cached(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.runtime.rewind(0)
    assert isinstance(loaded.runtime, QnnRuntime)
    real: Any = QnnRuntime._window

    def cut(self: QnnRuntime, ids: list[int], start: int) -> NDArray[np.float32]:
        if start:
            raise KeyboardInterrupt
        rows: NDArray[np.float32] = real(self, ids, start)
        return rows

    monkeypatch.setattr(QnnRuntime, "_window", cut)
    with pytest.raises(KeyboardInterrupt):
        loaded.runtime.append(loaded.ids[:20])
    monkeypatch.undo()
    loaded.check(
        loaded.runtime.position + 9, loaded.runtime.append(loaded.ids[loaded.runtime.position :][:10])
    )
