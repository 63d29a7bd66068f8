"""`edge shrink`: plans that are none, and steps that do not fit."""

from __future__ import annotations

from tests.messages import World, case

CONVERT = '[[step]]\ndo = "convert"\ntargets = ["cpu"]\n'


def run(world: World, text: str) -> None:
    (world.path / "plan.toml").write_text(text)
    world.edge("shrink", "plan.toml", "-o", "out")


@case
def files_that_are_no_plan(world: World) -> None:
    world.edge("shrink", "nowhere.toml", "-o", "out")
    for text in (
        "model =",
        'model = "phi4"\n',
        f"model = 3\n{CONVERT}",
        f'model = "a"\ntext = 3\n{CONVERT}',
        "a = 1",
    ):
        world.heading(" / ".join(text.splitlines()))
        run(world, text)


@case
def steps_that_do_not_fit(world: World) -> None:
    for steps in (
        '[[step]]\ndo = "wish"\n',
        '[[step]]\ndo = "prune"\nneuron = 0.5\n',
        '[[step]]\ndo = "distill"\nlayers = "one"\n',
        '[[step]]\ndo = "distill"\nmethod = "magic"\n',
        '[[step]]\ndo = "convert"\ntargets = "cpu"\n',
        f'{CONVERT}[[step]]\ndo = "heal"\nmethod = "loftq"\n',
        '[[step]]\ndo = "heal"\nmethod = "loftq"\n[[step]]\ndo = "prune"\n',
    ):
        world.heading(" / ".join(steps.splitlines()))
        run(world, f'model = "phi4"\n{steps}')


@case
def a_step_of_another_plan(world: World) -> None:
    model = world.tiny("phi4-mini")
    (world.path / "out" / "1-convert").mkdir(parents=True)
    run(world, f'model = "{model}"\n{CONVERT}')
