"""Mixed recipes: which storages a format holds, budgets."""

from __future__ import annotations

import json

from tests.messages import World, case


@case
def five_bits_in_onnx(world: World) -> None:
    rules = [{"pattern": "layers.1.mlp.down", "storage": "int5", "method": "rtn"},
             {"pattern": "*", "storage": "int4", "method": "rtn"}]  # fmt: skip
    (world.path / "recipe.json").write_text(json.dumps({"name": "mixed", "rules": rules}))
    world.edge("convert", world.tiny("phi4"), "--target", "cpu", "--dry-run", "--recipe", "recipe.json")
