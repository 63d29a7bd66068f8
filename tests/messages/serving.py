"""`edge serve`: what it says before it listens."""

from __future__ import annotations

import sys
from unittest import mock

from tests.messages import World, case


@case
def without_the_extra(world: World) -> None:
    with mock.patch.dict(sys.modules, {"llguidance": None}):
        for name in [name for name in sys.modules if name.startswith("edge.serving")]:
            del sys.modules[name]
        world.edge("serve", "b")


@case
def what_cannot_be_served(world: World) -> None:
    world.edge("serve")
    world.edge("serve", "nowhere", "--port", "0")
    world.edge("serve", "nowhere", "--token", "")
    # An address that no computer has (RFC 5737).
    world.edge("serve", "nowhere", "--host", "192.0.2.1")
    world.edge("serve", "nowhere", "--port", "65536")
