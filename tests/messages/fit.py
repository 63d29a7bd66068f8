"""`edge targets --fit`, and the headers that it reads from a hub."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.edge.hub_models import REPO, add_model, add_weights, path_of, point_at
from tests.edge.local_server import Site, serving
from tests.messages import World, case

NAME = f"hf:{REPO}"
WEIGHTS = path_of("model.safetensors")


@contextmanager
def hub(world: World) -> Iterator[Site]:
    with serving(Site()) as site, pytest.MonkeyPatch.context() as patch:
        point_at(site, patch, world.path)
        yield site


@case
def what_fits(world: World) -> None:
    with hub(world) as site:
        add_model(site, world.path / world.tiny("phi4-mini"))
        world.edge("targets", "--fit", NAME, "--context", "8192")
        world.edge("convert", NAME, "-t", "cpu", "--dry-run")


@case
def how_without_what(world: World) -> None:
    world.edge("targets", "--context", "512")


@case
def unknown_model(world: World) -> None:
    with hub(world):
        world.edge("targets", "--fit", "nowhere")
        world.edge("targets", "--fit", "smollm2-135m-instruct")
        world.edge("convert", NAME, "-t", "cpu", "--dry-run", "--frozen")


@case
def headers_that_are_refused(world: World) -> None:
    with hub(world) as site:
        add_weights(site, 1 << 10, header_length=1 << 40)
        world.edge("targets", "--fit", NAME)
        add_weights(site, 1 << 10)
        world.heading("a config that says nothing")
        world.edge("targets", "--fit", NAME)
        for status in ((403, {"X-Error-Code": "GatedRepo"}), (503, {})):
            site.status[WEIGHTS] = status
            world.heading(str(status))
            world.edge("targets", "--fit", NAME)


@case
def hub_that_breaks_off(world: World) -> None:
    with hub(world) as site:
        add_weights(site, 1 << 10)
        site.cuts[WEIGHTS] = [8, 20]
        world.edge("targets", "--fit", NAME)
        site.ranges = False
        site.headers[WEIGHTS]["Content-Range"] = "bytes 5-12/2000"
        world.edge("targets", "--fit", NAME)


@case
def size_that_cannot_be(world: World) -> None:
    with hub(world) as site:
        add_weights(site, 1 << 10)
        for route in [r for r in site.files if r.startswith("/api/")]:
            site.files[route] = re.sub(rb'"size": 1\d{3}\b', b'"size": 99999999999999', site.files[route])
        world.edge("targets", "--fit", NAME)


@case
def no_room_for_a_hole(world: World) -> None:
    with hub(world) as site:
        add_weights(site, 1 << 20)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        try:
            world.edge("targets", "--fit", NAME)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
