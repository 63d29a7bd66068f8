"""What a benchmark found, and what of it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge import machine
from edge.benchmarking.bandwidth import last_level_cache
from edge.benchmarking.spread import Spread
from edge.benchmarking.subject import Subject
from edge.benchmarking.turns import Run


@dataclass(frozen=True)
class Measured:
    """Of one artifact: `load` in seconds, the runs of each prompt length, and those of each depth, in each of which
    `decoded_tokens` were decoded."""

    subject: Subject
    load: Spread
    peak_bytes: int
    prompts: Mapping[int, tuple[Run, ...]]
    depths: Mapping[int, tuple[Run, ...]]
    decoded_tokens: int

    def first_token(self, tokens: int) -> Spread:
        """Seconds from a prompt of `tokens` to the logits of its last."""
        return Spread(tuple(run.seconds for run in self.prompts[tokens]))

    def prefill(self, tokens: int) -> Spread:
        """Prompt tokens per second."""
        return Spread(tuple(tokens / run.seconds for run in self.prompts[tokens]))

    def decode(self, depth: int) -> Spread:
        """Tokens per second, one by one, after `depth` others."""
        return Spread(tuple(self.decoded_tokens / run.seconds for run in self.depths[depth]))

    def share(self, depth: int) -> Spread | None:
        """Bytes read per second over what the memory gave just before; None when a token's bytes are unknown."""
        if self.subject.traffic is None:
            return None
        nbytes = self.subject.traffic.at(depth) * self.decoded_tokens
        return Spread(tuple(nbytes / run.seconds / run.bandwidth for run in self.depths[depth]))

    def to_data(self) -> dict[str, Any]:
        subject, traffic = self.subject, self.subject.traffic
        return {
            "name": subject.name,
            "runtime": subject.runtime,
            "settings": subject.settings.to_data(),
            "context_length": subject.context_length,
            "file_bytes": traffic and traffic.file_bytes,
            "weight_bytes_per_token": traffic and traffic.weights,
            "kv_bytes_per_position": traffic and traffic.kv,
            "load": {"seconds": self.load.to_data()},
            "memory": {"peak_bytes": self.peak_bytes, "before_load_bytes": subject.bytes_before},
            "prompts": [
                {
                    "tokens": tokens,
                    "first_token_s": self.first_token(tokens).to_data(),
                    "tokens_per_s": self.prefill(tokens).to_data(),
                }
                for tokens in self.prompts
            ],
            "depths": [
                {
                    "depth": depth,
                    "tokens_per_s": self.decode(depth).to_data(),
                    "bytes_per_token": traffic and traffic.at(depth),
                    "bandwidth_share": share.to_data() if (share := self.share(depth)) else None,
                }
                for depth in self.depths
            ],
        }


@dataclass(frozen=True)
class Benchmark:
    """One artifact, or two that were measured in turns."""

    measured: tuple[Measured, ...]
    threads: int
    runs: int
    decoded_tokens: int
    seed: int

    def _all_runs(self) -> list[Run]:
        tables = [table for each in self.measured for table in (each.prompts, each.depths)]
        return [run for table in tables for runs in table.values() for run in runs]

    def bandwidth(self) -> Spread:
        """Bytes per second that the memory gave beside the runs."""
        return Spread(tuple(run.bandwidth for run in self._all_runs()))

    def waited(self) -> float:
        """Share of the measured time in which the engines waited for a core: over a few percent, others disturbed."""
        runs = self._all_runs()
        return sum(run.waited for run in runs) / sum(run.seconds for run in runs)

    def ratios(self) -> dict[str, Any] | None:
        """The first artifact's values over the second's, as data; None for one artifact."""
        if len(self.measured) < 2:
            return None
        a, b = self.measured
        return {
            "load_s": a.load.over(b.load).to_data(),
            "peak_bytes": a.peak_bytes / b.peak_bytes,
            "first_token_s": [
                {"tokens": n, **a.first_token(n).over(b.first_token(n)).to_data()} for n in a.prompts
            ],
            "decode_tokens_per_s": [
                {"depth": d, **a.decode(d).over(b.decode(d)).to_data()} for d in a.depths
            ],
        }

    def to_data(self) -> dict[str, Any]:
        """What `--json` prints; the keys are told in `edge.benchmark`."""
        return {
            "machine": {
                "system": machine.describe(),
                "processor": machine.processor(),
                "cores": machine.cores(),
                "memory_bytes": machine.memory()[0],
                "instruction_sets": machine.instruction_sets(),
            },
            "threads": self.threads,
            "runs": self.runs,
            "decoded_tokens": self.decoded_tokens,
            "seed": self.seed,
            "peak_memory_from": machine.peak_memory_source(),
            "waited_for_cores": self.waited(),
            "last_level_cache_bytes": last_level_cache(),
            "bandwidth": {"bytes_per_s": self.bandwidth().to_data()},
            "artifacts": [each.to_data() for each in self.measured],
            "ratios": self.ratios(),
        }
