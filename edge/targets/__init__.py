"""Device targets: one TOML file each, here, in the person's config directory, or in the project's edge.toml.

A target file holds: title, format, precision, context_length, memory_mb, proven, proof_tokens (where a proof must run
fewer than others), where it asks for more or less
than `limits.toml` does one table `[limits.<precision>]` per precision that its proof accepts (see `Limits`), and
where it was measured a table `[profile]` (`edge.targets.profile`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from converters.errors import UnsupportedError
from edge.formats import FORMATS
from edge.targets import profile as profiles
from edge.targets.profile import Profile

_HERE = Path(__file__).parent
_SHARED_LIMITS = _HERE / "limits.toml"
_NO_TARGETS = ("limits.toml", "phones.toml", "socs.toml")


@dataclass(frozen=True)
class Limits:
    """What a proof must reach, on teacher-forced logits (natural-log KL, in nats per token).

    `fidelity_*`: the artifact in its runtime against the reference run on the *stored* (dequantized) weights:
    how exactly the graph was converted. `quality_*`: against the checkpoint's own weights: what
    quantization cost in all.
    """

    fidelity_kl_mean: float
    fidelity_top1: float
    quality_kl_mean: float
    quality_top1: float


def strictest(limits: Sequence[Limits]) -> Limits:
    """What satisfies all of `limits`: one artifact may serve several targets."""
    return Limits(
        fidelity_kl_mean=min(each.fidelity_kl_mean for each in limits),
        fidelity_top1=max(each.fidelity_top1 for each in limits),
        quality_kl_mean=min(each.quality_kl_mean for each in limits),
        quality_top1=max(each.quality_top1 for each in limits),
    )


@dataclass(frozen=True)
class Target:
    """A device class: what it runs, its defaults, and what was really executed where."""

    name: str
    title: str
    format: str
    runtime: str
    precision: str
    context_length: int
    memory_mb: int
    proven: str
    limits: Mapping[str, Limits]
    proof_tokens: int = 256
    profile: Profile = field(default_factory=Profile)

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    def limits_of(self, precision: str) -> Limits:
        """UnsupportedError when this target does not take `precision`."""
        if precision not in self.limits:
            raise UnsupportedError(
                f"target '{self.name}' does not take precision {precision}",
                hint=f"choose one of {', '.join(self.limits)}",
            )
        return self.limits[precision]


def load_targets(project: Path | None = None) -> dict[str, Target]:
    """All targets by name; a later place overrides an earlier: built in, config directory, `edge.toml`.

    `project` is the directory whose edge.toml is read (`[targets.<name>]` tables); the working directory
    when None. Raises UnsupportedError naming the file and key that is wrong.
    """
    found: dict[str, Target] = {}
    built_in = [file for file in sorted(_HERE.glob("*.toml")) if file.name not in _NO_TARGETS]
    personal = sorted((Path(platformdirs.user_config_dir("edge")) / "targets").glob("*.toml"))
    for file in (*built_in, *personal):
        found[file.stem] = _target(file.stem, read_toml(file), file)
    own = (project or Path.cwd()) / "edge.toml"
    if own.is_file():
        for name, table in read_toml(own).get("targets", {}).items():
            found[name] = _target(name, table, own)
    return found


def get_target(name: str) -> Target:
    """The target called `name`; UnsupportedError lists the known ones."""
    targets = load_targets()
    if name not in targets:
        raise UnsupportedError(
            f"unknown target '{name}' (known: {', '.join(sorted(targets))})",
            hint="run `edge targets` to see what each one is",
        )
    return targets[name]


def read_toml(file: Path) -> dict[str, Any]:
    """UnsupportedError when `file` is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnsupportedError(f"{file} is not valid TOML: {error}", hint=f"correct {file}") from None


def _target(name: str, table: Mapping[str, Any], file: Path) -> Target:
    hint = "compare it with edge/targets/cpu.toml"
    try:
        asked = table.get("limits") or read_toml(_SHARED_LIMITS)["limits"]
        limits = {precision: Limits(**values) for precision, values in asked.items()}
        fields = {key: value for key, value in table.items() if key not in ("limits", "profile")}
        target = Target(
            name=name,
            runtime=FORMATS[fields["format"]].runtime,
            limits=limits,
            profile=profiles.parse(table.get("profile", {})),
            **fields,
        )
        for key in ("title", "precision", "proven"):
            if not isinstance(fields[key], str):
                raise TypeError(f"{key} is no string")
        for key in ("context_length", "memory_mb", "proof_tokens"):
            if not isinstance(getattr(target, key), int) or getattr(target, key) < 1:
                raise TypeError(f"{key} is no positive integer")
        for values in limits.values():
            if not all(isinstance(value, int | float) for value in vars(values).values()):
                raise TypeError("a limit is no number")
    except (KeyError, TypeError, AttributeError) as error:
        raise UnsupportedError(
            f"target '{name}' in {file} is incomplete or wrong: {error}", hint=hint
        ) from None
    if target.precision not in limits:
        raise UnsupportedError(f"target '{name}' in {file} has no limits for {target.precision}", hint=hint)
    return target
