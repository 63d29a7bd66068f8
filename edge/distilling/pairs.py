"""Whether a student of its own fits its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import UnsupportedError
from edge.distilling import data
from edge.distilling.factors import check_factors, in_factors
from edge.distilling.kinds import kind_of
from quant.distill.cut import Kind

if TYPE_CHECKING:
    from edge.distilling.plan import DistillRequest


def check_pair(
    request: DistillRequest, directory: Path, teacher: dict[str, Any], student: dict[str, Any], kind: Kind
) -> None:
    assert request.student is not None
    if in_factors(student):
        check_factors(request.student, transfer=bool(request.transfer))
    own = "decoder" if in_factors(student) else kind_of(request.student.name, student)
    if own != kind:
        raise UnsupportedError(
            "teacher and student are not of one kind", hint="give two decoders or two encoders"
        )
    data.check_same_tokens(request.text, directory, request.student)
    for key in ("vocab_size", "id2label"):
        if teacher.get(key) != student.get(key):
            raise UnsupportedError(
                f"teacher and student differ in {key}", hint="give a student of the teacher's family"
            )
    if int(student["num_hidden_layers"]) > int(teacher["num_hidden_layers"]):
        raise UnsupportedError("the student has more layers than its teacher", hint="swap the two")


def check_pieces(teacher: dict[str, Any], student: dict[str, Any]) -> None:
    """A contiguous piece of every teacher matrix, in whole key-value groups, must have the student's shape."""

    def sizes(config: dict[str, Any]) -> tuple[dict[str, int], tuple[int, int]]:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        groups = int(config.get("num_key_value_heads") or heads)
        whole = {"width": width, "MLP": int(config["intermediate_size"]), "key-value groups": groups}
        return whole, (int(config.get("head_dim") or width // heads), heads // groups)

    (theirs, their_heads), (own, own_heads) = sizes(teacher), sizes(student)
    larger = [name for name in own if own[name] > theirs[name]]
    if larger or own_heads != their_heads:
        what = f"a larger {larger[0]}" if larger else "other attention heads"
        raise UnsupportedError(
            f"--transfer: the student has {what} than its teacher",
            hint="give a student of the teacher's family, smaller in every size, or leave out --transfer",
        )
