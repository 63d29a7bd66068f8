"""What a student is cut down to: some of the layers, and fewer channels.

No torch here: a plan is made, and told, without it. The cut says where training begins; shrink.json records it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from converters.errors import UnsupportedError
from quant.distill.encoder_axes import NARROWED, axes

Kind = Literal["decoder", "encoder"]
"""A Phi-3-layout language model, or a BERT-like model that classifies sequences."""
Keep = Literal["ends", "even"]
"""Which layers stay: a third of them from the front and the others from the back, or evenly spaced ones."""
LAYER = re.compile(r"^(.*\blayers?\.)(\d+)(\..*)$")
"""Prefix, number and rest of the name of a layer's tensor."""


@dataclass(frozen=True)
class Cut:
    """Which teacher layer each student layer begins as, and the config keys that change."""

    layers: tuple[int, ...]
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def narrower(self) -> bool:
        return "hidden_size" in self.changes

    def answers(self, depth: int) -> tuple[int, ...]:
        """For each student layer the teacher layer, of `depth`, that it answers to: it stands for its own and those
        that are left out behind it, which is TED's map when every second layer stays.
        """
        return tuple(n - 1 for n in (*self.layers[1:], depth))


def plan_cut(
    config: Mapping[str, Any],
    kind: Kind,
    layers: int | None,
    hidden: int | None,
    keep: Keep | None = None,
    *,
    whole: bool = False,
) -> Cut:
    """From a teacher's config: `layers` of it as `keep` says, the last among them; None keeps what the teacher has.

    keep: None for what suits the kind: a decoder's ends, an encoder's evenly spaced layers. whole: a student of the
    teacher's size will do.
    A narrower student keeps head size and queries a group; heads and MLP neurons are in proportion to `hidden`.
    Raises UnsupportedError when the student would not be smaller, or cannot be made.
    """
    depth, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    layers, hidden = layers or depth, hidden or width
    if layers > depth or hidden > width or ((layers, hidden) == (depth, width) and not whole):
        raise UnsupportedError(
            f"a student of {layers} layers of width {hidden} is not smaller than its teacher: {depth} of {width}",
            hint=f"try --layers {max(1, depth // 2)}",
        )
    kept = kept_layers(depth, layers, keep or ("ends" if kind == "decoder" else "even"))
    changes = {"num_hidden_layers": layers}
    if hidden == width:
        return Cut(kept, changes)
    if kind == "encoder" and config.get("model_type") not in NARROWED:
        raise UnsupportedError(
            f"an encoder of type {config.get('model_type')!r} keeps its width",
            hint="leave out --hidden, or give a narrower one with --student DIR",
        )
    heads = int(config["num_attention_heads"])
    groups = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or width // heads)
    unit = size * (heads // groups)
    if hidden % unit:
        # transformers checks rotary factors against hidden / heads, so the two must agree with the head size.
        raise UnsupportedError(
            f"--hidden {hidden} is not a multiple of {unit}, "
            + ("a key-value group's queries" if kind == "decoder" else "an attention head"),
            hint=f"try --hidden {max(unit, hidden // unit * unit)}",
        )
    inner = int(config["intermediate_size"]) * hidden / width
    changes |= {
        "hidden_size": hidden,
        "num_attention_heads": hidden // size,
        "intermediate_size": max(32, round(inner / 32) * 32),
    }
    if kind == "decoder":
        changes |= {"num_key_value_heads": hidden // unit, "head_dim": size}
    return Cut(kept, changes)


def kept_layers(depth: int, count: int, keep: Keep) -> tuple[int, ...]:
    """Ascending numbers of `count` of `depth` layers, the last among them."""
    if keep == "ends":
        front = round(count / 3)
        return (*range(front), *range(depth - count + front, depth))
    return tuple(depth - 1 - round(i * (depth - 1) / max(1, count - 1)) for i in reversed(range(count)))


def layer_map(student: int, teacher: int) -> tuple[int, ...]:
    """For each student layer the teacher layer that it answers to: evenly spaced, the last to the last."""
    return tuple(-(-(i + 1) * teacher // student) - 1 for i in range(student))


def kept_parameters(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], cut: Cut) -> int:
    """How many weights of the tensors `shapes` of a teacher the cut leaves."""
    new, total = {**config, **cut.changes}, 0
    hidden, inner = new["hidden_size"], new["intermediate_size"]
    for name, shape in shapes.items():
        found = LAYER.match(name)
        if found and int(found[2]) not in cut.layers:
            continue
        if cut.narrower and "head_dim" not in cut.changes:
            sizes = {"channels": hidden, "heads": hidden, "neurons": inner}
            shape = tuple(sizes.get(a, n) for a, n in zip(axes(name), shape, strict=False))
        elif cut.narrower:
            heads, groups, size = new["num_attention_heads"], new["num_key_value_heads"], new["head_dim"]
            kind = name.removesuffix(".weight").rpartition(".")[2]
            rows = {"qkv_proj": (heads + 2 * groups) * size, "gate_up_proj": 2 * inner}.get(kind, hidden)
            columns = {"o_proj": heads * size, "down_proj": inner}.get(kind, hidden)
            rows = shape[0] if kind in ("embed_tokens", "lm_head") else rows
            shape = (rows, columns) if len(shape) == 2 else (hidden,)
        total += math.prod(shape)
    return total
