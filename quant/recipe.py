"""A recipe says how every weight is stored. It is data: a bundle's manifest carries it, a person can write one."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from converters.decoder import Decoder, Weight
from converters.errors import CheckpointError, UnsupportedError
from converters.hybrid import UNQUANTIZED
from converters.plain import require_plain
from converters.writer import Activations, Encoded, Storage
from quant import rtn
from quant.blocks import BLOCK, FORMATS, Blocks, dequantize
from quant.codes import CodeStore
from quant.row_scales import constrain

Method = Literal["rtn", "gptq", "cast"]
Precision = Literal["int4", "int8", "f16", "bf16", "f32"]

_LARGEST = {
    "f32": float(np.finfo(np.float32).max),
    "f16": float(np.finfo(np.float16).max),
    "bf16": float(np.array(0x7F7F, np.uint16).view(ml_dtypes.bfloat16)),
}
_HEADS = ("embedding", "lm_head")
_ATTENTION = "layers.*.attention.*"


@dataclass(frozen=True)
class Rule:
    """Weights whose neutral name matches the shell pattern (`layers.*.attention.q`) are stored like this.

    method: for the block formats "rtn" (round to nearest, quant.rtn) or "gptq" (calibrated, quant.calibrate), for
    floats "cast".
    """

    pattern: str
    storage: Storage
    method: Method


@dataclass(frozen=True)
class Recipe:
    """Rules in order; the first that matches a matrix decides. Vectors (norms, biases) are always f32, and so are the
    routers of experts: a rounding that changes who is chosen is no small one.

    A matrix whose columns are no multiple of 32 cannot be cut into blocks: where a rule asks for them it is
    stored as f16 (`notes` says so).
    """

    name: str
    rules: tuple[Rule, ...]
    activations: Activations = "f16"
    """Of an NPU. For "u16" the blocks of linear layers have scales that are multiples of a row's
    (quant.row_scales)."""
    codes: CodeStore | None = field(default=None, compare=False, repr=False)
    """What the rules with the method "gptq" encode from; not part of the data that a recipe is."""
    ranges: Mapping[str, tuple[float, float]] | None = field(default=None, compare=False, repr=False)
    """Of the activations (quant.ranges); no more than the codes part of the data that a recipe is."""

    @classmethod
    def preset(cls, name: Precision, *, experts: bool = False) -> Recipe:
        """int4 keeps embedding and lm_head at int8: they are read by every token, and 4 bits cost most there.

        Of a model with `experts` it keeps the attention at int8 as well, 3 % of Phi-3.5-MoE: what it adds to the
        residual stream decides who is chosen, and a token with another expert is lost. The KL of random models is 0.4
        to 0.7 of what it is with attention at 4 bits (benchmarks/moe_gguf.md).
        """
        if name not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise UnsupportedError(f"no precision is called {name!r}", hint=f"choose one of {known}")
        everything = Rule("*", name, "rtn" if name in FORMATS else "cast")
        if name == "int4":
            kept = (*_HEADS, _ATTENTION) if experts else _HEADS
            return cls(name, (*(Rule(pattern, "int8", "rtn") for pattern in kept), everything))
        return cls(name, (everything,))

    def calibrated(self) -> Recipe:
        """The same storages, with the codes of every linear layer chosen by calibration.

        The embedding has no inputs to calibrate on: it, and lm_head with it, stay as they are.
        """
        heads = tuple(Rule(h, self._rule_of(h).storage, self._rule_of(h).method) for h in _HEADS)
        rest = (rule for rule in self.rules if rule.pattern not in _HEADS)
        coded = (replace(rule, method="gptq") if rule.storage in FORMATS else rule for rule in rest)
        return Recipe(f"{self.name} calibrated", (*heads, *coded), self.activations)

    def with_encoders(self, kinds: Iterable[str] = ("vision", "speech")) -> Recipe:
        """The same for a decoder, and int8 at least for encoders and built-in adapters of the names `kinds`.

        They are a small part of a model, and what they get wrong, every later token sees.
        """
        if self._rule_of("vision.").storage not in ("int4", "int4_asym", "int5"):
            return self
        rules = tuple(Rule(f"{kind}[.:]*", "int8", "rtn") for kind in kinds)
        return replace(self, rules=(*rules, *self.rules))

    def to_calibrate(self, decoder: Decoder) -> list[Weight]:
        """The weights whose codes calibration must choose. UnsupportedError for one that it cannot."""
        asked = [
            weight
            for weight in decoder.weights()
            if _has_rule(weight)
            and self._rule_of(weight.name).method == "gptq"
            and self.storage(weight) in FORMATS
        ]
        if asked:
            require_plain(decoder, "calibration", "leave --calibrate away: codes are then rounded to nearest")
        for weight in asked:
            if weight in (decoder.embedding, decoder.lm_head):
                raise UnsupportedError(
                    f"recipe {self.name} asks for calibrated codes of {weight.name}, which calibration does not reach",
                    hint=f'give it a rule of its own before: pattern = "{weight.name}", method = "rtn"',
                )
        return asked

    def storage(self, weight: Weight) -> Storage:
        """How `weight` is stored. UnsupportedError when no rule matches it."""
        if not _has_rule(weight):
            return "f32"
        asked = self._rule_of(weight.name).storage
        return "f16" if asked in FORMATS and weight.shape[1] % BLOCK else asked

    def notes(self, decoder: Decoder, others: Iterable[Weight] = ()) -> list[str]:
        """One line for the matrices of a kind (their numbers apart) that are stored otherwise than their rule says, and
        for every rule that never decides. `others`: weights of the model beside the decoder's."""
        used: set[Rule] = set()
        kinds: dict[tuple[str, str, int], list[str]] = {}
        for weight in filter(_has_rule, (*decoder.weights(), *others)):
            rule = self._rule_of(weight.name)
            used.add(rule)
            if self.storage(weight) != rule.storage:
                kind = re.sub(r"\d+", "*", weight.name), rule.storage, weight.shape[1]
                kinds.setdefault(kind, []).append(weight.name)
        lines = [
            f"{names[0] if len(names) == 1 else f'{kind} ({len(names)} matrices)'}: f16 instead of {storage}, "
            f"{columns} columns are no multiple of {BLOCK}"
            for (kind, storage, columns), names in kinds.items()
        ]
        for rule in self.rules:
            if rule not in used and not (decoder.tied and rule.pattern == "lm_head"):
                lines.append(
                    f"recipe {self.name}: the rule for {rule.pattern} decides no weight of this model"
                )
        return lines

    def encode(self, weight: Weight, raw_rows: NDArray[np.generic], *, start: int = 0) -> Encoded:
        """A row chunk [start, start + n) of `weight` as stored; raw rows in any float dtype of a checkpoint.

        CheckpointError when a value is not finite, UnsupportedError when one is too large for the storage; both
        name the weight and the row.
        """
        storage = self.storage(weight)
        if storage in FORMATS:
            return self._blocks(weight, storage, raw_rows, start)
        return _cast(weight, storage, raw_rows, start)

    def _blocks(self, weight: Weight, storage: str, raw_rows: NDArray[np.generic], start: int) -> Blocks:
        row_scales = self.activations == "u16" and weight.name not in _HEADS
        if self._rule_of(weight.name).method == "gptq":
            blocks = self._calibrated_rows(weight, storage, start, start + len(raw_rows))
            return constrain(blocks, dequantize(blocks)) if row_scales else blocks
        try:
            blocks = rtn.quantize(raw_rows, FORMATS[storage])
        except rtn.BadValueError as bad:
            raise _refuse(weight, storage, start + bad.row, bad.column, bad.value) from None
        return constrain(blocks, raw_rows.astype(np.float32)) if row_scales else blocks

    def _calibrated_rows(self, weight: Weight, storage: str, start: int, stop: int) -> Blocks:
        if self.codes is None:
            raise UnsupportedError(
                f"recipe {self.name} takes calibrated codes for {weight.name}, and there are none",
                hint="add --calibrate, which makes them",
            )
        return self.codes.rows(weight, FORMATS[storage], start, stop)

    @staticmethod
    def decode(encoded: Encoded) -> NDArray[np.float32]:
        """What a stored chunk stands for, float32 of the weight's shape; exact."""
        return dequantize(encoded) if isinstance(encoded, Blocks) else encoded.astype(np.float32)

    def to_data(self) -> dict[str, Any]:
        """Plain data for a manifest; `from_data` reads it back."""
        data: dict[str, Any] = {"name": self.name, "rules": [asdict(rule) for rule in self.rules]}
        return data if self.activations == "f16" else {**data, "activations": self.activations}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recipe:
        """UnsupportedError that names the rule and the key when `data` is no recipe."""
        if not isinstance(data, Mapping) or set(data) - {"activations"} != {"name", "rules"}:
            raise _no_recipe("it needs exactly the keys name and rules")
        if not isinstance(data["name"], str) or not isinstance(data["rules"], list) or not data["rules"]:
            raise _no_recipe("name must be a string and rules a list that is not empty")
        activations = data.get("activations", "f16")
        if activations not in get_args(Activations):
            raise _no_recipe(f"activations is {activations!r}, not one of {', '.join(get_args(Activations))}")
        rules = tuple(_read_rule(i, rule) for i, rule in enumerate(data["rules"]))
        return cls(data["name"], rules, activations)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe from a .toml or .json file."""
        try:
            text = path.read_text(encoding="utf-8")
            data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except OSError as error:
            raise UnsupportedError(
                f"recipe {path} cannot be read: {error.strerror}", hint=f"try: ls -l {path}"
            ) from None
        except ValueError as error:
            raise UnsupportedError(
                f"recipe {path} is neither TOML nor JSON: {error}",
                hint="name it .toml or .json by its content",
            ) from None
        return cls.from_data(data)

    def _rule_of(self, name: str) -> Rule:
        for rule in self.rules:
            if fnmatchcase(name, rule.pattern):
                return rule
        raise UnsupportedError(
            f"no rule of recipe {self.name} matches weight {name}",
            hint='end the recipe with a rule whose pattern is "*"',
        )


def _has_rule(weight: Weight) -> bool:
    return weight.is_matrix and not weight.name.endswith((".router", *UNQUANTIZED))


def _read_rule(index: int, data: object) -> Rule:
    where = f"rule {index + 1}"
    if not isinstance(data, Mapping) or set(data) != {"pattern", "storage", "method"}:
        raise _no_recipe(f"{where} needs exactly the keys pattern, storage and method")
    pattern, storage, method = data["pattern"], data["storage"], data["method"]
    if not isinstance(pattern, str) or not pattern:
        raise _no_recipe(f"{where}: pattern must be a string that is not empty")
    if storage not in get_args(Storage):
        raise _no_recipe(f"{where}: storage is {storage!r}, not one of {', '.join(get_args(Storage))}")
    expected: tuple[Method, ...] = ("rtn", "gptq") if storage in FORMATS else ("cast",)
    if method not in expected:
        takes = " or ".join(map(repr, expected))
        raise _no_recipe(f"{where}: method is {method!r}, but {storage} takes {takes}")
    return Rule(pattern, storage, method)


def _no_recipe(why: str) -> UnsupportedError:
    return UnsupportedError(
        f"not a recipe: {why}",
        hint='a rule reads {"pattern": "layers.*", "storage": "int4", "method": "rtn"}; the manifest of any '
        "bundle shows a whole recipe",
    )


def _cast(weight: Weight, storage: str, raw: NDArray[np.generic], start: int) -> NDArray[np.generic]:
    with np.errstate(over="ignore"):
        wide = raw.astype(np.float32)
    limit = _LARGEST[storage]
    # A nan makes both comparisons false.
    if not (wide.max(initial=0) <= limit and wide.min(initial=0) >= -limit):
        place = tuple(int(i) for i in np.argwhere(~(np.abs(wide) <= limit))[0])
        column = place[1] if weight.is_matrix else None
        raise _refuse(weight, storage, start + place[0], column, float(wide[place]))
    if storage == "f32":
        return wide
    return wide.astype(np.float16 if storage == "f16" else ml_dtypes.bfloat16)


def _refuse(
    weight: Weight, storage: str, row: int, column: int | None, value: float
) -> CheckpointError | UnsupportedError:
    place = f"{weight.name} row {row}" + ("" if column is None else f" column {column}")
    tensors = ", ".join(sorted({part.tensor for part in weight.parts}))
    if np.isfinite(value):
        return UnsupportedError(
            f"{place} is {value:g}, too large for {storage} (tensor {tensors})",
            hint="try --precision f32, or --recipe FILE with a rule that stores this weight as bf16 or f32",
        )
    return CheckpointError(
        f"{place} is {value} (tensor {tensors})", hint="the checkpoint is damaged: fetch or export it again"
    )
