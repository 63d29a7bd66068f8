"""What a conversion is asked for, and what is known of it before a byte is written (`edge.plan` finds it out)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.decoder import Decoder
from converters.errors import UnsupportedError
from converters.multimodal import Multimodal
from converters.writer import Activations
from edge import ranges, streaming
from edge.calibration_cost import CalibrationPlan
from edge.fit import Memory
from edge.mixed import Budget, Mixed
from edge.npu.socs import Soc
from edge.proof import MAX_LOGIT_BYTES
from edge.sources import Resolved
from edge.targets import Target
from quant.recipe import Recipe

# Interpreter, numpy, onnx and gguf; each thread holds a chunk's raw rows, scratch, codes and packed bytes. Rounded up
# from what `make test-slow` prints (115 MiB with two threads).
BASE_MEMORY = 90 << 20
CHUNK_FACTOR = 6
PROOF_LOGITS = 4  # the reference's, with and without the codec, the engine's, and scratch


@dataclass(frozen=True)
class ConvertRequest:
    """What the person asked for; None means the target's (or the machine's) default."""

    checkpoint: str
    targets: tuple[str, ...]
    precision: str | None = None
    context: int | None = None
    output: Path | None = None
    proof: bool = True
    allow_unproven: bool = False
    threads: int | None = None
    recipe: Path | None = None
    calibrate: Path | bool = False
    """A text, or True for the one that ships."""
    spill: bool = False
    bits_per_weight: float | None = None
    size_mb: float | None = None
    """Instead of a precision or recipe: a budget (see edge.mixed)."""
    activations: Activations = "f16"
    """Of NPU targets."""
    socs: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    """PEFT directories, DIR or NAME=DIR."""
    allow_cpu: bool = False
    """Of an NPU's graphs: whether nodes may run on the CPU."""
    locked: bool = False
    frozen: bool = False

    @property
    def budget(self) -> Budget | None:
        """UnsupportedError when it is not the only word on how weights are stored."""
        given = {
            "--bits-per-weight": self.bits_per_weight,
            "--size-mb": self.size_mb,
            "--precision": self.precision,
            "--recipe": self.recipe,
        }
        named = [option for option, value in given.items() if value is not None]
        if self.bits_per_weight is None and self.size_mb is None:
            return None
        if len(named) > 1:
            raise UnsupportedError(
                f"{' and '.join(named)} each say how weights are stored", hint="leave one of them"
            )
        return Budget(self.bits_per_weight, self.size_mb)


@dataclass(frozen=True)
class PlannedVariant:
    """One artifact to be: every target in `targets` takes this same file or folder."""

    name: str
    format: str
    relative_path: str
    targets: tuple[Target, ...]
    precision: str
    recipe: Recipe
    context_length: int
    context_reason: str | None
    disk_bytes: int
    memory: Memory
    soc: Soc | None = None
    """Compiled for it, from the variant called `source`."""
    source: str | None = None
    approximate: str | None = None
    """Why it is not the same model, where its runtime computes something else (`converters.rewriting`)."""

    @property
    def device_bytes(self) -> int:
        return self.memory.total

    def to_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "format": self.format,
            "path": self.relative_path,
            "targets": [t.name for t in self.targets],
            "precision": self.precision,
            "context_length": self.context_length,
            "context_reason": self.context_reason,
            **({"soc": self.soc.name, "compiled_from": self.source} if self.soc else {}),
            **({"approximate": self.approximate} if self.approximate else {}),
            "disk_bytes": self.disk_bytes,
            "device_memory_bytes": self.device_bytes,
            "device_memory": self.memory.to_data(),
        }


@dataclass(frozen=True)
class Plan:
    """Everything that is known before a byte is written."""

    request: ConvertRequest
    source: Resolved
    model: Decoder | Multimodal
    decoder: Decoder
    """Of the model, with the adapters that were asked for."""
    variants: tuple[PlannedVariant, ...]
    output: Path
    threads: int
    notes: tuple[str, ...]
    read_bytes: int
    calibration: CalibrationPlan | None = None
    mixed: Mixed | None = None

    @property
    def memory_bytes(self) -> int:
        """Expected peak of this process; without calibration it does not depend on the model's size. A proof's
        engine is apart."""
        proof = PROOF_LOGITS * MAX_LOGIT_BYTES if self.request.proof else 0
        convert = self.threads * CHUNK_FACTOR * streaming.CHUNK_BYTES + proof
        calibration = self.calibration.memory_bytes if self.calibration else 0
        mixed = self.mixed.memory_bytes if self.mixed else 0
        measured = ranges.memory_bytes(self.decoder) if any(map(ranges.needs_ranges, self.variants)) else 0
        # Added up: what a calibration frees is not all given back before the pass begins.
        return BASE_MEMORY + convert + max(calibration, mixed, measured)

    def to_data(self) -> dict[str, Any]:
        return {
            "source": self.source.source,
            "architecture": self.decoder.architecture,
            "parameters": self.model.parameters,
            "output": str(self.output),
            "variants": [v.to_data() for v in self.variants],
            "read_bytes": self.read_bytes,
            "write_bytes": sum(v.disk_bytes for v in self.variants),
            "memory_bytes": self.memory_bytes,
            "threads": self.threads,
            "calibration": self.calibration.to_data() if self.calibration else None,
            "notes": list(self.notes),
        }
