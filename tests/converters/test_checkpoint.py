"""Sound checkpoints are read to the bit, by any rows, from any thread, in bounded memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from converters.checkpoint import Checkpoint
from converters.decoder import Rows, Weight
from converters.errors import CheckpointError
from converters.row_log import RowLog
from tests.attacks.checkpoints import DATA, HEADER, INDEX, SHARDS, SINGLE, pack, write_shards, write_single

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@contextmanager
def eager_switches() -> Iterator[None]:
    """Threads switch as often as the interpreter can, so that an update without its lock gets lost."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Matrices f (5 x 6) and g (3 x 6) in bf16, h (4 x 6) in f32, vector v (7)."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "f": torch.randn(5, 6, generator=generator).bfloat16(),
        "g": torch.randn(3, 6, generator=generator).bfloat16(),
        "h": torch.randn(4, 6, generator=generator),
        "v": torch.randn(7, generator=generator).bfloat16(),
    }
    (tmp_path / "config.json").write_text('{"model_type": "phi3"}')
    save_file(tensors, tmp_path / SINGLE, metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize("dtype", TORCH)
def test_every_bit_of_a_dtype_comes_back(dtype: str, tmp_path: Path) -> None:
    # Random bytes hold what random numbers do not: NaN payloads, infinities, denormals, both zeros.
    width = TORCH[dtype].itemsize
    raw = np.random.default_rng(1).integers(0, 256, 2**18 * width, np.uint8)
    if width == 2:
        raw[: 2**17] = np.arange(2**16, dtype="<u2").view(np.uint8)
    tensor = torch.from_numpy(raw).view(TORCH[dtype]).reshape(512, 512)
    save_file({"t": tensor, "one": tensor[3, 4].clone(), "none": tensor[:0].clone()}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text("{}")
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.tensors["t"].dtype == dtype
        rows = checkpoint.read("t")
        assert rows.shape == (512, 512)
        assert rows.tobytes() == raw.tobytes()
        assert str(rows.dtype) == str(TORCH[dtype]).removeprefix("torch.")
        assert checkpoint.read("one").tobytes() == rows[3, 4].tobytes()
        assert checkpoint.read("none").shape == (0, 512)


def test_reads_config_single_file_and_row_ranges(directory: Path) -> None:
    with Checkpoint.open(directory) as checkpoint:
        assert checkpoint.config == {"model_type": "phi3"}
        assert checkpoint.directory == directory.resolve()
        assert set(checkpoint.tensors) == {"f", "g", "h", "v"}
        info = checkpoint.tensors["f"]
        assert (info.shape, info.rows, info.nbytes, info.file.name) == ((5, 6), 5, 60, SINGLE)
        whole = checkpoint.read("f")
        for start in range(6):
            for stop in range(start, 6):
                part = checkpoint.read("f", start, stop)
                assert part.tobytes() == whole[start:stop].tobytes()
                assert part.shape == (stop - start, 6)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert [(name, t.file.name) for name, t in checkpoint.tensors.items()] == [
            ("a", SHARDS[0]),
            ("b", SHARDS[1]),
        ]
        assert checkpoint.read("a").tobytes() + checkpoint.read("b").tobytes() == DATA


def test_an_index_may_name_the_single_file(tmp_path: Path) -> None:
    write_single(tmp_path, pack(HEADER))
    (tmp_path / INDEX).write_text(f'{{"weight_map": {{"a": "{SINGLE}", "b": "{SINGLE}"}}}}')
    with Checkpoint.open(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b"}


def test_other_files_beside_the_weights_do_not_matter(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"\x80")
    (directory / "consolidated.safetensors").write_bytes(b"")
    with Checkpoint.open(directory) as checkpoint:
        assert "f" in checkpoint.tensors


def test_a_hugging_face_cache_snapshot_opens_through_its_links(directory: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--model"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", SINGLE):
        (directory / name).rename(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"hash-of-{name}")
    with Checkpoint.open(snapshot) as checkpoint:
        assert checkpoint.read("f").shape == (5, 6)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(repository / "config.json")
    (repository / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="leaves the checkpoint directory"):
        Checkpoint.open(snapshot)


def test_rows_that_are_not_there_are_refused(directory: Path) -> None:
    with Checkpoint.open(directory) as checkpoint:
        for start, stop in ((0, 6), (-1, 2), (3, 2), (0, 2**60)):
            with pytest.raises(IndexError):
                checkpoint.read("f", start, stop)
            with pytest.raises(IndexError):
                checkpoint.weight_rows(Weight("w", (5, 6), (Rows("f", 0, 5),)), start, stop)
        with pytest.raises(CheckpointError, match='tensor "x" is missing'):
            checkpoint.read("x")
        assert set(checkpoint.rows_read.values()) == {0}


def test_weight_rows_cross_parts(directory: Path) -> None:
    weight = Weight("w", (6, 6), (Rows("f", 3, 5), Rows("g", 0, 3), Rows("f", 0, 1)))
    with Checkpoint.open(directory) as checkpoint:
        f, g = checkpoint.read("f"), checkpoint.read("g")
        whole = np.concatenate([f[3:5], g, f[:1]])
        assert checkpoint.weight_dtype(weight) == "BF16"
        for start in range(7):
            for stop in range(start, 7):
                assert checkpoint.weight_rows(weight, start, stop).tobytes() == whole[start:stop].tobytes()
        vector = checkpoint.weight_rows(Weight("norm", (7,), (Rows("v", 0, 7),)), 2, 5)
        assert vector.tobytes() == checkpoint.read("v")[2:5].tobytes()


@pytest.mark.parametrize(
    ("weight", "cause"),
    [
        (Weight("w", (5, 6), (Rows("x", 0, 5),)), 'tensor "x" is missing'),
        (Weight("w", (5, 7), (Rows("f", 0, 5),)), r'tensor "f" has shape \[5, 6\], but weight w \[5, 7\]'),
        (Weight("w", (6, 6), (Rows("f", 0, 6),)), r'tensor "f" has shape .* takes its rows 0:6'),
        (Weight("w", (7,), (Rows("f", 0, 5),)), 'tensor "f" has shape'),
        (Weight("w", (8, 6), (Rows("f", 0, 5),)), "its tensors give 5 rows, the config wants 8"),
        (Weight("w", (9, 6), (Rows("f", 0, 5), Rows("h", 0, 4))), "tensors f, h mix dtypes BF16, F32"),
    ],
)
def test_a_weight_that_its_tensors_do_not_fit_is_refused(directory: Path, weight: Weight, cause: str) -> None:
    with Checkpoint.open(directory) as checkpoint, pytest.raises(CheckpointError, match=cause):
        checkpoint.weight_rows(weight, 0, 1)


def test_rows_read_and_unread_follow_the_reads(directory: Path) -> None:
    with Checkpoint.open(directory) as checkpoint:
        assert set(checkpoint.unread()) == {"f", "g", "h", "v"}
        checkpoint.read("f", 3, 5)
        checkpoint.read("f", 0, 2)
        checkpoint.read("g")
        checkpoint.weight_rows(Weight("h", (4, 6), (Rows("h", 0, 4),)), 0, 4)
        assert checkpoint.rows_read == {"f": 4, "g": 3, "h": 4, "v": 0}
        assert set(checkpoint.unread()) == {"f", "v"}
        checkpoint.read("f", 1, 3)
        assert checkpoint.rows_read["f"] == 6
        assert checkpoint.unread() == ["v"]


def test_rows_read_is_exact_from_many_threads(directory: Path) -> None:
    with Checkpoint.open(directory) as checkpoint, ThreadPoolExecutor(8) as pool:
        expected = checkpoint.read("f").tobytes()

        def read(row: int) -> bytes:
            return checkpoint.read("f", row % 5, row % 5 + 1).tobytes()

        with eager_switches():
            rows = list(pool.map(read, range(5 * 2000)))
        assert b"".join(rows) == expected * 2000
        assert checkpoint.rows_read["f"] == 5 + 5 * 2000


def test_a_row_log_loses_no_range_between_threads() -> None:
    log, barrier = RowLog(), Barrier(4)

    def add(first: int) -> None:
        barrier.wait()
        for row in range(first, 2000, 4):
            log.add("t", row, row + 1)

    with eager_switches(), ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert log.counts() == {"t": 2000}
    assert log.covers("t", 2000)
    assert not log.covers("t", 2001)


def test_a_file_that_shrinks_after_opening_is_an_error(directory: Path) -> None:
    with Checkpoint.open(directory) as checkpoint:
        last = max(checkpoint.tensors.values(), key=lambda t: t.offset)
        os.truncate(directory / SINGLE, last.offset + 1)
        with pytest.raises(
            CheckpointError, match=rf"{SINGLE}: ends at byte {last.offset + 1}, \d+ bytes early"
        ):
            checkpoint.read(last.name)
        assert last.name in checkpoint.unread()


def test_a_read_that_the_kernel_cuts_short_goes_on(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Checkpoint.open(directory) as checkpoint:
        whole = checkpoint.read("f").tobytes()
        preadv = os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:7]], at))
        assert checkpoint.read("f").tobytes() == whole


def test_a_failing_disk_is_an_error_that_names_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Checkpoint.open(directory) as checkpoint:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(
            CheckpointError, match=rf"{SINGLE}: cannot be read at byte \d+: Input/output error"
        ):
            checkpoint.read("f")


def test_close_gives_every_descriptor_back(tmp_path: Path) -> None:
    def held() -> int:
        return sum(file.path.startswith(str(tmp_path)) for file in psutil.Process().open_files())

    write_shards(tmp_path)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert held() == 2
    assert held() == 0
    checkpoint.close()
    with pytest.raises(ValueError, match="closed"):
        checkpoint.read("a")


_STREAM = """
import sys
from pathlib import Path
from converters.checkpoint import Checkpoint

def peak():
    # Not ru_maxrss: a child starts with its parent's, which here is pytest with torch.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

before = peak()
with Checkpoint.open(Path(sys.argv[1])) as checkpoint:
    for start in range(0, 131072, 1024):
        assert not checkpoint.read("t", start, start + 1024).view("u2").any()
    assert checkpoint.unread() == [] and checkpoint.rows_read["t"] == 131072
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory comes from Linux's /proc")
def test_streaming_a_gigabyte_takes_a_few_chunks_of_memory(tmp_path: Path) -> None:
    rows, columns = 131072, 4096
    header = {"t": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, rows * columns * 2]}}
    content = pack(header, b"")
    write_single(tmp_path, content)
    os.truncate(tmp_path / SINGLE, len(content) + rows * columns * 2)
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # A chunk is 8 MiB; two stand at once while the next is read, and the comparison takes another half.
    assert int(done.stdout) < 32 * 2**20
