"""A hub on this machine with one model, for an empty machine."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants as hub
import pytest

from tests.edge.local_server import COMMIT, Site, add_repository

REPO = "owner/Small-1B"


def path_of(name: str) -> str:
    return f"/{REPO}/resolve/{COMMIT}/{name}"


def add_model(site: Site, checkpoint: Path) -> None:
    add_repository(site, REPO, {p.name: p.read_bytes() for p in checkpoint.iterdir()})


def add_weights(site: Site, data: int, header_length: int | None = None) -> int:
    """A model of one tensor of `data` zeros, whose header may claim another length; returns the header's bytes."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [data // 4], "data_offsets": [0, data]}}).encode()
    length = (len(header) if header_length is None else header_length).to_bytes(8, "little")
    weights = length + header + bytes(data)
    add_repository(site, REPO, {"config.json": b"{}", "model.safetensors": weights})
    return 8 + len(header)


def point_at(site: Site, monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    """Make `site` the hub, and `machine` the place of every cache and lock."""
    monkeypatch.chdir(machine)
    monkeypatch.setattr(hub, "ENDPOINT", site.url)
    template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(machine / "hub"))
    monkeypatch.setenv("EDGE_CACHE_DIR", str(machine / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
