"""`edge package`: chat templates that are no texts between messages."""

from __future__ import annotations

from edge.packaging import turns
from tests.messages import World, case


@case
def templates_that_the_app_cannot_use(world: World) -> None:
    for template in (
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'].replace('\\n', ' ') }}{% endfor %}",
    ):
        world.call(turns.describe, template, bos_token="", eos_token="")
