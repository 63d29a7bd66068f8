"""What "memory" means here."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Memory:
    """Peak resident set of the engine's process in bytes (Linux: VmHWM), with the context filled to its end.

    weights: pages of the artifact that were touched, and what the engine copies out of them for its kernels.
    kv_cache: keys and values of the whole context, which both engines take when they load.
    workspace: activations, scores and logits of one chunk of a prompt, or what loading takes beyond all else.
    runtime: the engine's own code and data, the tokenizer, and the Python that drives it.
    file_backed: of `weights`, clean pages of the artifact, which the system drops when memory is short and reads
    again when they are needed.
    """

    weights: int
    kv_cache: int
    workspace: int
    runtime: int
    file_backed: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.workspace + self.runtime

    def to_data(self) -> dict[str, int]:
        return {"total": self.total, **asdict(self)}
