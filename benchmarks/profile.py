"""Which engine settings are fastest here: `python -m benchmarks.profile [--write]`.

Every value is measured beside the one that holds now, in two live processes that take turns. Other programs disturb
wall time more than any setting changes it, so all but the settings about threads are compared by the processor time
of one thread. A value is chosen when the answers stay the same and, on every model, a turn of chat (the prompt and
128 tokens of answer) takes less time in at least three quarters of the pairs, and by more than a process gains
beside another like it. What is measured is kept in the work folder, and not measured again; `--write` puts the
choice and all of it into edge/targets/*.toml.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tomlkit

from benchmarks.profile_trials import CONTROL, MODELS, Candidate, artifact, candidates
from edge import machine
from edge.benchmarking.engine_process import EngineProcess
from edge.benchmarking.spread import Spread
from edge.runtimes import EngineSettings
from edge.targets.profile import Trial, trial_of

TARGETS = {"cpu": "onnx", "android": "gguf"}
GRAPHS = {
    "cpu": {"accuracy_level": 4, "block_size": 32, "embedding": "int8", "lm_head": "int8", "kv_type": "f32"},
    "android": {"block_size": 32, "embedding": "int8", "lm_head": "int8"},
}
"""What conversions make now; a test holds it equal to them."""
ANSWER = 128


@dataclass(frozen=True)
class Costs:
    """Seconds of one process, repetition by repetition: of the whole prompt, and of one decoded token."""

    prompt: Spread
    token: Spread

    def turn(self) -> Spread:
        pairs = zip(self.prompt.samples, self.token.samples, strict=True)
        return Spread(tuple(prompt + ANSWER * token for prompt, token in pairs))


@dataclass(frozen=True)
class Depth:
    """How much is run: prompt tokens, which are also the depth of decoding, decoded tokens, repetitions."""

    prompt: int
    decoded: int
    runs: int


def compare(
    paths: Sequence[Path], settings: Sequence[EngineSettings], depth: Depth, clock: str
) -> list[Costs]:
    """Both artifacts in turns, after one run of each that does not count."""
    live: list[EngineProcess] = []
    prompt: list[list[float]] = [[], []]
    token: list[list[float]] = [[], []]
    context = depth.prompt + depth.decoded + 1
    try:
        for path, each in zip(paths, settings, strict=True):
            live.append(EngineProcess(path, context_length=context, settings=each, seed=0))
        for run in range(depth.runs + 1):
            for i, process in enumerate(live):
                prefill = process.ask(do="prompt", tokens=depth.prompt)
                decode = process.ask(do="decode", depth=depth.prompt, tokens=depth.decoded)
                if run:
                    prompt[i].append(prefill[clock])
                    token[i].append(decode[clock] / depth.decoded)
    finally:
        for process in live:
            process.close()
    return [Costs(Spread(tuple(p)), Spread(tuple(t))) for p, t in zip(prompt, token, strict=True)]


def run_trial(
    work: Path, model: str, format: str, candidate: Candidate, depth: Depth
) -> tuple[Trial, float] | None:
    """The trial, and how many times less a turn of chat takes with the candidate in the worse quarter of the pairs."""
    base, path = artifact(work, model, format), artifact(work, model, format, candidate.altered)
    if base is None or path is None:
        return None
    threads = None if candidate.wall else 1
    tried = replace(candidate.settings, threads=candidate.settings.threads or threads)
    clock = "seconds" if candidate.wall else "cpu_seconds"
    own, other = compare([path, base], [tried, EngineSettings(threads=threads)], depth, clock)
    trial = Trial(
        candidate.setting,
        candidate.value,
        candidate.against,
        model,
        "wall" if candidate.wall else "cpu",
        depth.prompt,
        _three(other.prompt.over(own.prompt)),
        _three(other.token.over(own.token)),
        candidate.same_answers,
    )
    return trial, other.turn().over(own.turn()).quantile(0.25)


def _three(spread: Spread) -> tuple[float, float, float]:
    low, high = min(spread.samples), max(spread.samples)
    return round(spread.median, 3), round(low, 3), round(high, 3)


def choose(format: str, gains: dict[tuple[str, str], list[float]]) -> EngineSettings:
    """The value of each setting whose worst gain over the models is largest, where on all of them it is a gain and
    more than what a setting gains by nothing but noise."""
    noise = max(
        [1.0, *(gain for (setting, _), found in gains.items() if setting == CONTROL for gain in found)]
    )
    best: dict[str, tuple[float, Candidate]] = {}
    for candidate in candidates(format):
        found = gains.get((candidate.setting, candidate.value), [])
        if len(found) < len(MODELS) or not candidate.same_answers or min(found) <= noise:
            continue
        if candidate.setting not in best or min(found) > best[candidate.setting][0]:
            best[candidate.setting] = (min(found), candidate)
    chosen = EngineSettings()
    for _, candidate in best.values():
        chosen = replace(chosen, **candidate.settings.to_data())
    return chosen


def write(file: Path, chosen: EngineSettings, trials: Sequence[Trial]) -> None:
    """Replace the table [profile] of a target's file; the rest of it stays as it is."""
    document = tomlkit.parse(file.read_text(encoding="utf-8"))
    table = tomlkit.table()
    table.comment("by `python -m benchmarks.profile --write`; what it means: edge/targets/profile.py")
    load = f"load {os.getloadavg()[0]:.0f}"  # far above the cores: spreads are wide
    table["machine"] = f"{machine.processor()}, {machine.cores()} cores, {machine.describe()}, {load}"
    for name, values in (("engine", chosen.to_data()), ("graph", GRAPHS[file.stem])):
        table[name] = tomlkit.inline_table()
        table[name].update(values)
    rows = tomlkit.array().multiline(True)
    for trial in trials:
        row = tomlkit.inline_table()
        row.update({k: list(v) if isinstance(v, tuple) else v for k, v in asdict(trial).items()})
        rows.append(row)
    table["measured"] = rows
    document["profile"] = table
    file.write_text(tomlkit.dumps(document), encoding="utf-8")


def known(file: Path) -> list[tuple[str, float, Trial]]:
    """(target, gain, trial) of every line that an earlier run wrote."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(row["target"], row["gain"], trial_of(row["trial"])) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="folder for artifacts and results")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--model", action="append", choices=sorted(MODELS))
    parser.add_argument("--setting", action="append", help="these alone")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prompt, and depth of decoding")
    parser.add_argument("--write", action="store_true", help="put the result into edge/targets")
    args = parser.parse_args()
    work: Path = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    results = work / "profile.jsonl"
    depth = Depth(args.prompt, 16, args.runs)
    print(
        f"{machine.processor()}, {machine.cores()} cores; speed over that of the present value, median (range)"
    )
    for target in args.target or TARGETS:
        format = TARGETS[target]
        for model in args.model or MODELS:
            for candidate in candidates(format):
                if args.setting and candidate.setting not in args.setting:
                    continue
                key = (target, model, candidate.setting, candidate.value)
                if any((t, x.model, x.setting, x.value) == key for t, _, x in known(results)):
                    continue
                if (done := run_trial(work, model, format, candidate, depth)) is not None:
                    row = {"target": target, "gain": done[1], "trial": asdict(done[0])}
                    with results.open("a") as file:
                        print(json.dumps(row), file=file)
        finish(target, [(gain, trial) for t, gain, trial in known(results) if t == target], args.write)


def finish(target: str, found: Sequence[tuple[float, Trial]], to_file: bool) -> None:
    gains: dict[tuple[str, str], list[float]] = {}
    for gain, trial in found:
        gains.setdefault((trial.setting, trial.value), []).append(gain)
        print(
            f"{target:8} {trial.model:13} {trial.setting:21} {trial.value:6} against {trial.against:18} "
            f"{trial.clock:4} prefill {_shown(trial.prefill)} decode {_shown(trial.decode)}"
        )
    chosen = choose(TARGETS[target], gains)
    print(f"{target}: chosen {chosen.to_data() or 'nothing: what holds now is not beaten'}", flush=True)
    if to_file:
        folder = Path(__file__).parents[1] / "edge" / "targets"
        write(folder / f"{target}.toml", chosen, [trial for _, trial in found])


def _shown(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"


if __name__ == "__main__":
    main()
