"""`hf:` sources through the command line and huggingface_hub, against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converters.checkpoint import Checkpoint
from edge import lock
from tests.edge.local_server import COMMIT, Site, add_repository, serving

REPO = "owner/Small-1B"
WEIGHTS = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
PINNED = f"hf:{REPO}@{COMMIT}"
Edge = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tiny: Callable[..., Path]) -> Iterator[Site]:
    files = {p.name: p.read_bytes() for p in tiny("phi3-mini-4k").iterdir()}
    files |= {"pytorch_model.bin": b"pickle", "modeling_x.py": b"raise SystemExit", "onnx/model.onnx": b"x"}
    files |= {"modules.json": b"[]", "1_Pooling/config.json": b"{}", "2_Dense/model.safetensors": b"x"}
    with serving(Site()) as site:
        add_repository(site, REPO, files)
        yield site


@pytest.fixture
def edge(site: Site, tmp_path: Path) -> Edge:
    """Run `edge ARGUMENTS` in tmp_path with caches of its own, against the hub here."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "EDGE_"))}
    places = {"EDGE_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    environment = clean | places | {"HF_ENDPOINT": site.url, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())"]
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def _names(path: Path) -> list[str]:
    return sorted(p.name for p in path.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_lock_pull_and_check(site: Site, edge: Edge, tmp_path: Path) -> None:
    assert edge("lock", "small", f"hf:{REPO}").returncode == 0
    model = lock.read(tmp_path / "models.lock")["small"]
    assert (model.source, model.licence) == (PINNED, "mit")
    for file in model.files:
        assert file.sha256 == hashlib.sha256(site.files[f"/{REPO}/resolve/{COMMIT}/{file.path}"]).hexdigest()
    # The hub tells the hashes of weights; they are not downloaded to be locked.
    assert site.gets(WEIGHTS) == []

    done = edge("pull", "small", "--json")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    names = {f.path for f in model.files}
    directory = Path(found["directory"])
    assert {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()} == names
    assert not names & {"pytorch_model.bin", "modeling_x.py", "2_Dense/model.safetensors"}
    assert names >= {"modules.json", "1_Pooling/config.json"}
    assert (Path(found["directory"]) / "model.safetensors").read_bytes() == site.files[WEIGHTS]
    with Checkpoint.open(Path(found["directory"])) as checkpoint:
        assert checkpoint.config["model_type"] == "phi3"
    assert (tmp_path / "hf" / "hub") in Path(found["directory"]).parents

    assert edge("lock", "--check").returncode == 0
    site.log.clear()
    assert edge("pull", "small", "--frozen").returncode == 0
    assert site.log == []


def test_a_cut_download_is_continued(site: Site, edge: Edge) -> None:
    site.cuts[WEIGHTS] = [50_000]
    done = edge("pull", PINNED)
    assert done.returncode == 0, done.stderr
    assert site.gets(WEIGHTS) == [None, "bytes=50000-"]
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == site.files[WEIGHTS]


def test_a_wrong_byte_is_refused(site: Site, edge: Edge, tmp_path: Path) -> None:
    assert edge("lock", "small", f"hf:{REPO}").returncode == 0
    good = site.files[WEIGHTS]
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    site.files[WEIGHTS] = bytes(bad)
    done = edge("pull", "small")
    assert done.returncode == 1
    for word in ("model.safetensors", hashlib.sha256(good).hexdigest(), hashlib.sha256(bad).hexdigest()):
        assert word in done.stderr
    assert "hint:" in done.stderr
    # Nothing that could be taken for the weights is left, here or in the hub's cache: the next pull is clean.
    assert "model.safetensors" not in _names(tmp_path)
    site.files[WEIGHTS] = good
    assert edge("pull", "small").returncode == 0


def test_a_wrong_byte_in_the_cache_is_refused(site: Site, edge: Edge) -> None:
    done = edge("pull", PINNED)
    weights = Path(done.stdout.strip()) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = edge("pull", PINNED)
    assert done.returncode == 1
    assert hashlib.sha256(data).hexdigest() in done.stderr
    assert edge("pull", PINNED).returncode == 0
    assert weights.read_bytes() == site.files[WEIGHTS]


@pytest.mark.parametrize(
    ("status", "headers", "code", "named"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, 4, "gated"),
        (401, {}, 4, "401"),
        (403, {}, 4, "403"),
        (404, {"X-Error-Code": "RepoNotFound"}, 1, "the hub has no"),
        (404, {"X-Error-Code": "RevisionNotFound"}, 1, "the hub has no"),
        (500, {}, 1, "500"),
    ],
)
def test_refusals(
    site: Site, edge: Edge, status: int, headers: dict[str, str], code: int, named: str
) -> None:
    site.status[f"/api/models/{REPO}"] = (status, headers)
    done = edge("lock", "small", f"hf:{REPO}")
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert done.stderr.count("\n") == 2
    assert "hint:" in done.stderr
    if status == 401 and headers:
        assert "HF_TOKEN" in done.stderr


def test_a_stray_file_in_the_snapshot_is_refused(edge: Edge) -> None:
    snapshot = Path(edge("pull", PINNED).stdout.strip())
    (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"stray")
    done = edge("pull", PINNED)
    assert done.returncode == 1
    assert "model-00002-of-00002.safetensors is not in the lock" in done.stderr


def test_a_gated_file_is_refused(site: Site, edge: Edge) -> None:
    assert edge("lock", "small", f"hf:{REPO}").returncode == 0
    site.status[WEIGHTS] = (403, {"X-Error-Code": "GatedRepo"})
    done = edge("pull", "small")
    assert done.returncode == 4
    assert "gated" in done.stderr


def test_pickles_alone_are_refused(site: Site, edge: Edge) -> None:
    add_repository(site, REPO, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    done = edge("lock", "small", f"hf:{REPO}")
    assert done.returncode == 1
    assert "safetensors" in done.stderr


def test_an_unpinned_lock_is_refused(edge: Edge, tmp_path: Path) -> None:
    assert edge("lock", "small", f"hf:{REPO}").returncode == 0
    path = tmp_path / "models.lock"
    path.write_text(path.read_text().replace(COMMIT, "main"))
    done = edge("pull", "small")
    assert done.returncode == 1
    assert "pins no commit" in done.stderr


def test_a_killed_download_is_continued(site: Site, edge: Edge, tmp_path: Path) -> None:
    site.cuts[WEIGHTS] = [50_000, 0, 0, 0, 0]
    done = edge("pull", PINNED)
    assert done.returncode == 1
    assert "broke off" in done.stderr
    assert "model.safetensors" not in _names(tmp_path)
    site.log.clear()
    assert edge("pull", PINNED).returncode == 0
    assert site.gets(WEIGHTS) == ["bytes=50000-"]


def test_no_hub(site: Site, edge: Edge) -> None:
    assert edge("lock", "small", f"hf:{REPO}").returncode == 0
    # Port 9 (discard) of the loopback: nobody listens.
    done = edge("pull", "small", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    assert "cannot reach the hub" in done.stderr
    assert "HF_ENDPOINT" in done.stderr


def test_the_token_goes_to_the_hub_only(site: Site, edge: Edge) -> None:
    with serving(Site()) as store:
        store.files["/blob"] = site.files[WEIGHTS]
        site.status[WEIGHTS] = (302, {**site.headers[WEIGHTS], "Location": f"{store.url}/blob"})
        site.status[WEIGHTS][1].update({"X-Linked-Etag": site.headers[WEIGHTS]["ETag"]})
        site.status[WEIGHTS][1].update({"X-Linked-Size": str(len(site.files[WEIGHTS]))})
        done = edge("pull", PINNED, HF_TOKEN="hf_secret")
        assert done.returncode == 0, done.stderr
        assert site.tokens == {"Bearer hf_secret"}
        assert store.gets("/blob") == [None]
        assert store.tokens == set()
