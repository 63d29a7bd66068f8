"""`edge serve`: what it says before it listens."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from edge.serving.events import Event
from edge.serving.server import Server, bind
from edge.serving.worker import Worker
from tests.messages import World, case


@case
def without_the_extra(world: World) -> None:
    with mock.patch.dict(sys.modules, {"llguidance": None}):
        world.edge("serve", "b")


@case
def what_cannot_be_served(world: World) -> None:
    world.edge("serve")
    world.edge("serve", "nowhere", "--port", "0")
    world.edge("serve", "nowhere", "--token", "")
    # An address that no computer has (RFC 5737).
    world.edge("serve", "nowhere", "--host", "192.0.2.1")
    world.edge("serve", "nowhere", "--port", "65536")


@case
def a_place_that_another_took_meanwhile(world: World) -> None:
    """Two may be bound to it, while they load their models, until the first one listens."""
    web: Any = None
    worker: Worker[Event] = Worker(0)
    try:
        with bind("127.0.0.1", 0) as one, bind("127.0.0.1", one.getsockname()[1]) as other:
            one.listen()
            world.call(Server(web, worker, grace=0, ready=lambda: None, log=print).run, [other])
    finally:
        worker.close()
