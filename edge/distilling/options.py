"""Options of a distillation that only one method, or only some optimizers, take: their defaults and their refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import UnsupportedError
from quant.distill.cut import Kind

if TYPE_CHECKING:
    from edge.distilling.plan import DistillRequest

CAMERO = {"heads": 4, "perturbation": "dropout", "consistency": 1.0, "consistency_target": "ensemble"}


def camero_settings(request: DistillRequest, kind: Kind) -> dict[str, Any] | None:
    """CAMERO's settings by the names of CAMERO above, defaults filled in; None for another method.

    Raises UnsupportedError for a decoder, and for an option that the method has no use for.
    """
    given = {name: getattr(request, name) for name in CAMERO}
    if request.method != "camero":
        _refuse_first(given, f"--method {request.method} has no use for", "they are --method camero's")
        return None
    if kind != "encoder":
        raise UnsupportedError(
            "--method camero trains several classification heads, which a decoder has not",
            hint="give an encoder with its head, or another --method",
        )
    others = {"hidden_weight": request.hidden_weight, "filter_steps": request.filter_steps}
    _refuse_first(others, "--method camero has no use for", "it compares the heads' answers alone")
    return {name: CAMERO[name] if value is None else value for name, value in given.items()}


def check_optimizer(request: DistillRequest) -> None:
    """Raises UnsupportedError for options that do not go together."""
    if request.mup and request.optimizer != "adamw":
        raise UnsupportedError(
            f"--mup is a rule for Adam's learning rates, and the optimizer is {request.optimizer}",
            hint="leave out one of the two",
        )
    if request.transfer and (request.mup or request.optimizer != "adamw"):
        raise UnsupportedError(
            "--transfer trains a LoRA, and --optimizer and --mup are for whole weights",
            hint="leave out --transfer, or the other",
        )


def _refuse_first(options: dict[str, Any], cause: str, hint: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(f"{cause} --{name.replace('_', '-')}", hint=hint)
