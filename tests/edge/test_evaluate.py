"""`edge eval`: the figures are llama-perplexity's, of any artifact, against a checkpoint or another artifact."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from converters.checkpoint import Checkpoint
from converters.errors import EdgeError, UnsupportedError
from converters.models import describe
from converters.reference import logits as reference_logits
from edge import cli
from edge.cli.eval import _text_lines as text_lines
from edge.evaluate import CheckpointReference, Evaluation, evaluate
from edge.evaluation.engine import Engine
from edge.evaluation.pointwise import score
from edge.evaluation.statistics import mean, perplexity, quantile, share
from edge.evaluation.windows import cut, read_text
from edge.progress import Silent
from edge.proof import TEXT
from edge.runtimes import open_runtime
from quant.recipe import Recipe
from tests.converters.gguf_support import write_gguf
from tests.edge.engines import not_a_number, write_variant

Tiny = Callable[..., Path]
LENGTH = 32
WINDOWS = 4


@dataclasses.dataclass(frozen=True)
class Figures:
    """What llama-perplexity --kl-divergence prints, by the names used here: (value, error)."""

    perplexity: tuple[float, float]
    reference_perplexity: tuple[float, float]
    ln_ratio: tuple[float, float]
    kl_mean: tuple[float, float]
    kl_median: float
    kl_p99: float
    kl_max: float
    top1: tuple[float, float]


def published(base: NDArray[Any], logits: NDArray[Any], targets: NDArray[Any], *, stored: bool) -> Figures:
    """The definition of tools/perplexity/perplexity.cpp, in float64. `stored`: with its base file's rounding.

    That file holds each log-probability as a 16-bit step of the range from the largest down to 16 nats less, and
    the KL leaves out what is below -16.
    """
    base, logits = base.astype(np.float64), logits.astype(np.float64)
    rows = np.arange(len(targets))
    log_q = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    log_p = base - np.logaddexp.reduce(base, axis=1)[:, None]
    if stored:
        top = base.max(1, keepdims=True)
        low = np.maximum(base.min(1, keepdims=True), top - 16)
        scale = (top - low) / 65535
        codes = np.rint((np.maximum(base, low) - low) / scale)
        log_p = scale * codes + (low - top + log_p.max(1, keepdims=True))
    kl = np.where(log_p > -16 if stored else True, np.exp(log_p) * (log_p - log_q), 0).sum(1)
    nll, nll_base = -log_q[rows, targets], -log_p[rows, targets]
    n = len(kl)

    def average(x: NDArray[Any]) -> tuple[float, float]:
        return float(x.mean()), math.sqrt(((x * x).mean() - x.mean() ** 2) / (n - 1))

    def exponential(x: NDArray[Any]) -> tuple[float, float]:
        value, error = average(x)
        return math.exp(value), math.exp(value) * error

    covariance = ((nll * nll_base).mean() - nll.mean() * nll_base.mean()) / (n - 1)
    variance = average(nll)[1] ** 2 + average(nll_base)[1] ** 2 - 2 * covariance
    same = float((log_p.argmax(1) == log_q.argmax(1)).mean())
    ordered = np.sort(kl)
    place = 0.99 * (n - 1)
    low_rank = int(place)
    p99 = ordered[low_rank] + (place - low_rank) * (ordered[min(low_rank + 1, n - 1)] - ordered[low_rank])
    return Figures(
        exponential(nll),
        exponential(nll_base),
        (float(nll.mean() - nll_base.mean()), math.sqrt(max(variance, 0.0))),
        average(kl),
        float(np.median(kl)),
        float(p99),
        float(kl.max()),
        (same, math.sqrt(same * (1 - same) / (n - 1))),
    )


def figures(evaluation: Evaluation) -> Figures:
    def pair(name: str) -> tuple[float, float]:
        estimate = getattr(evaluation, name)
        return estimate.value, estimate.error

    assert evaluation.kl_median
    assert evaluation.kl_p99
    assert evaluation.kl_max is not None
    pairs = {n: pair(n) for n in ("perplexity", "reference_perplexity", "ln_ratio", "kl_mean", "top1")}
    return Figures(
        **pairs,
        kl_median=evaluation.kl_median.value,
        kl_p99=evaluation.kl_p99.value,
        kl_max=evaluation.kl_max,
    )


def assert_close(found: Figures, expected: Figures, tolerance: float) -> None:
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=tolerance, atol=1e-7, err_msg=name)


def random_logits(
    count: int, vocab: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Peaked as a model's: the tail lies far under 16 nats."""
    draw = np.random.default_rng(0)
    base = (draw.standard_normal((count, vocab)) * 4).astype(np.float32)
    logits = base + draw.standard_normal(base.shape).astype(np.float32) * 0.3
    return base, logits, draw.integers(0, vocab, count)


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint, as float32 and int4 artifacts."""
    directory = tmp_path_factory.mktemp("artifacts")
    checkpoint = tiny("phi4")
    paths = {engine: write_variant(engine, checkpoint, directory, context=256) for engine in ("onnx", "gguf")}
    write_gguf(checkpoint, directory / "int4.gguf", Recipe.preset("int4"), context=256)
    return paths | {"int4": directory / "int4.gguf", "checkpoint": checkpoint}


@dataclasses.dataclass
class Stages(Silent):
    """Notes what stages there were."""

    names: list[str] = dataclasses.field(default_factory=list)

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        self.names.append(name)


@pytest.fixture(scope="module")
def evaluated(made: dict[str, Path]) -> tuple[dict[str, Evaluation], list[str]]:
    """Every artifact against the one checkpoint, and the stages that were told."""
    stages = Stages()
    with Checkpoint.open(made["checkpoint"]) as checkpoint:
        reference = CheckpointReference(checkpoint)
        found = {
            name: evaluate(
                made[name],
                reference,
                TEXT.read_text(),
                length=LENGTH,
                windows=WINDOWS,
                threads=1,
                progress=stages,
            )
            for name in ("onnx", "gguf", "int4")
        }
    return found, stages.names


def test_the_statistics_are_those_of_llama_perplexity() -> None:
    base, logits, targets = random_logits(3000, 500)
    scores = score(logits, base, targets)
    assert scores.kl is not None
    assert scores.reference_nll is not None
    assert scores.same_top is not None
    p99, median = quantile(scores.kl, 0.99), quantile(scores.kl, 0.5)

    def both(estimate: Any) -> tuple[float, float]:
        return estimate.value, estimate.error

    found = Figures(
        both(perplexity(scores.nll)),
        both(perplexity(scores.reference_nll)),
        both(mean(scores.nll - scores.reference_nll)),
        both(mean(scores.kl)),
        median.value,
        p99.value,
        float(scores.kl.max()),
        both(share(scores.same_top)),
    )
    assert_close(found, published(base, logits, targets, stored=False), 1e-9)  # both are float64
    # The file's 16-bit steps are 2.4e-4 nats wide, and it clips what is 16 nats below the top: that moves the
    # perplexity of targets drawn at random, which lie in the tail, and a KL of 0.04 by little.
    stored = published(base, logits, targets, stored=True)
    assert found.kl_mean == pytest.approx(stored.kl_mean, rel=2e-3)
    assert found.kl_p99 == pytest.approx(stored.kl_p99, rel=2e-3)
    assert found.top1 == pytest.approx(stored.top1, abs=2e-3)


def test_the_errors_are_the_scatter_of_repeated_draws() -> None:
    """Of 2,000 samples of 400 from a skewed distribution, as KL is. 2,000 draws know a scatter to 2 %; the
    quantiles' error is itself noisy, its mean is asked to be within 15 %."""
    draw = np.random.default_rng(1)
    samples = np.exp(draw.standard_normal((2000, 400)) - 3)
    for estimate, tolerance in (
        (mean, 0.05),
        (perplexity, 0.05),
        (lambda x: quantile(x, 0.5), 0.15),
        (lambda x: quantile(x, 0.95), 0.15),
        (lambda x: share(x > 0.1), 0.05),
    ):
        found = [estimate(sample) for sample in samples]
        scatter = np.std([e.value for e in found])
        assert np.mean([e.error for e in found]) == pytest.approx(scatter, rel=tolerance)


def test_windows_are_cut_as_llama_perplexity_cuts_them() -> None:
    windows = cut(range(100, 150), length=16, bos=1, most=None, name="t")
    assert windows.ids[:, 0].tolist() == [1, 1, 1]  # each begins with BOS, in place of its first token
    assert windows.ids[:, 1:].tolist() == [list(range(100 + 16 * i, 115 + 16 * i)) for i in range(3)]
    assert (windows.first, windows.scored) == (8, 7)
    assert windows.targets.tolist() == [row[9:] for row in windows.ids.tolist()]
    assert len(cut(range(50), length=16, bos=None, most=2, name="t").ids) == 2
    assert cut(range(50), length=16, bos=None, most=None, name="t").ids[2].tolist() == list(range(32, 48))
    odd = cut(range(50), length=15, bos=None, most=None, name="t")
    assert (odd.first, odd.scored) == (7, 7)


def test_a_float_artifact_says_what_its_checkpoint_says(
    evaluated: tuple[dict[str, Evaluation], list[str]], made: dict[str, Path]
) -> None:
    found, stages = evaluated
    for name in ("onnx", "gguf"):
        # Float32 in both: logits differ by 1e-5, a KL by the square of that.
        assert figures(found[name]).kl_max < 1e-6, name
        assert found[name].ln_ratio.value == pytest.approx(0, abs=1e-5)  # type: ignore[union-attr]
    assert found["int4"].kl_mean.value > 1e-3  # type: ignore[union-attr]
    assert sum(stage.startswith("reference") for stage in stages) == 1, "computed once for three artifacts"


def test_the_figures_are_those_of_the_logits(
    evaluated: tuple[dict[str, Evaluation], list[str]], made: dict[str, Path]
) -> None:
    """Of the int4 artifact: its runtime's logits and the checkpoint's, put into the published definition."""
    found = evaluated[0]["int4"]
    windows = found.positions.windows
    runtime = open_runtime(made["int4"], context_length=LENGTH, threads=1, exact=True)
    rows = slice(windows.first, -1)
    with Checkpoint.open(made["checkpoint"]) as checkpoint:
        decoder = describe(checkpoint)
        base = [reference_logits(checkpoint, decoder, ids)[rows] for ids in windows.ids.tolist()]
    mine = [runtime.teacher_forced(ids)[rows] for ids in windows.ids.tolist()]
    runtime.close()
    expected = published(np.concatenate(base), np.concatenate(mine), windows.targets.ravel(), stored=False)
    # Sums in another order move float32 logits by 1e-5; a KL of 1e-2 feels the root of that.
    assert_close(figures(found), expected, 1e-3)


def test_an_artifact_as_the_reference(
    evaluated: tuple[dict[str, Evaluation], list[str]], made: dict[str, Path], capsys: Any, tmp_path: Path
) -> None:
    words = ["eval", str(made["int4"]), "--against", str(made["gguf"]), "--text", str(TEXT), "--threads", "1"]
    task = tmp_path / "t.jsonl"
    task.write_text('{"kind": "choice", "question": "x", "choices": ["a", "b"], "answer": 0}\n' * 4)
    words += ["--length", str(LENGTH), "--windows", str(WINDOWS), "--tasks", str(task)]
    assert cli.main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    (against,) = data["evaluations"]
    expected = evaluated[0]["int4"].to_data()
    assert against["method"] == expected["method"]
    assert against["method"]["predictions"] == WINDOWS * (LENGTH // 2 - 1)
    for name in ("perplexity", "reference_perplexity", "kl_mean", "kl_median", "kl_p99", "top1"):
        assert against[name]["value"] == pytest.approx(expected[name]["value"], rel=1e-3), name
    (answered,) = data["tasks"]
    assert answered["accuracy"]["value"] in (0.0, 1.0)  # one question four times
    assert answered["agreement"]["value"] in (0.0, 1.0)
    assert len(answered["items"]) == 4


def test_the_worst_predictions_are_told_in_context(
    evaluated: tuple[dict[str, Evaluation], list[str]],
) -> None:
    positions = evaluated[0]["int4"].positions
    windows = positions.windows
    assert positions.kl is not None
    assert positions.kl.shape == (WINDOWS, windows.scored)
    worst = positions.worst
    ordered = np.sort(positions.kl.ravel())[::-1][: len(worst)]
    assert [w.kl for w in worst] == pytest.approx(ordered.tolist(), rel=1e-6)
    first = worst[0]
    assert positions.kl[first.window, first.position - windows.first] == np.float32(first.kl)
    assert windows.ids[first.window, first.position + 1] == first.target
    text = TEXT.read_text()
    assert positions.before(first, 12) + positions.text([first.target]) in text
    likeliest = [max(c.reference, c.artifact) for c in first.candidates]
    assert likeliest == sorted(likeliest, reverse=True)


def test_the_table_shows_every_figure_with_its_error(
    evaluated: tuple[dict[str, Evaluation], list[str]],
) -> None:
    for some in (["int4"], ["int4", "gguf", "onnx"]):
        evaluations = [evaluated[0][name] for name in some]
        lines = text_lines(evaluations)
        assert "60 predictions" in lines[1]
        rows = {line[:17].strip(): line[17:].split("  ") for line in lines[-8:]}
        assert list(rows) == [
            *("perplexity", "reference's", "ln of their ratio", "KL mean (nats)", "KL median", "KL p99"),
            *("KL max", "same top-1 (%)"),
        ]
        assert all(len([cell for cell in cells if cell.strip()]) == len(some) for cells in rows.values())
        value, error = next(cell for cell in rows["KL mean (nats)"] if cell.strip()).split(" ± ")
        kl = evaluations[0].kl_mean
        assert kl
        assert float(value) == pytest.approx(kl.value, abs=kl.error)
        assert float(error) == pytest.approx(kl.error, rel=0.05)  # two digits


def test_a_reference_of_another_model_is_refused(made: dict[str, Path], tiny: Tiny) -> None:
    others = {
        "has a vocabulary of 640 tokens, phi4.* of 704": tiny("phi4", vocab_size=704),
        "into other tokens than phi3-mini-4k": tiny("phi3-mini-4k"),
    }
    for told, directory in others.items():
        with Checkpoint.open(directory) as checkpoint, pytest.raises(UnsupportedError, match=told):
            evaluate(made["gguf"], checkpoint, TEXT.read_text(), length=LENGTH, threads=1)


def test_logits_that_are_no_numbers_are_named(made: dict[str, Path], tmp_path: Path) -> None:
    file = not_a_number(made["gguf"], tmp_path / "nan.gguf")
    with pytest.raises(UnsupportedError, match=r"nan\.gguf: .*window 0 at position 16"):
        evaluate(file, None, TEXT.read_text(), length=LENGTH, threads=1)


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="note has 20 tokens, one window needs 32") as error:
        cut(range(20), length=32, bos=None, most=None, name="note")
    assert "--length 20" in error.value.hint
    with pytest.raises(UnsupportedError, match="note has 0 tokens"):
        cut([], length=32, bos=None, most=None, name="note")
    file = tmp_path / "latin.txt"
    file.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(UnsupportedError, match=r"latin\.txt is not UTF-8: byte 2 is 0xef"):
        read_text(file)


def test_an_engine_ends_with_its_block_whatever_happens(made: dict[str, Path]) -> None:
    engine = Engine(made["gguf"], name="x", length=LENGTH)

    def interrupted() -> None:
        with engine:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert engine._process.returncode == -signal.SIGKILL
    with pytest.raises(EdgeError, match=r"no\.gguf"):
        Engine(Path("no.gguf"), name="x", length=LENGTH)
    with Engine(made["gguf"], name="x", length=LENGTH) as engine:
        engine._process.kill()
        with pytest.raises(EdgeError, match="was killed"):
            engine.encode("x")


@pytest.mark.skipif(sys.platform != "linux", reason="only there a child can be bound to its parent's life")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_engine_outlives_the_command(how: signal.Signals, made: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(TEXT.read_text() * 200)  # minutes of work
    words = [
        "eval",
        str(made["gguf"]),
        "--text",
        str(tmp_path / "long.txt"),
        "--length",
        "32",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from edge.cli import main; raise SystemExit(main())", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    while not children and process.poll() is None:
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    assert children, process.communicate()
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    out, err = process.communicate()
    assert process.returncode == (130 if how is signal.SIGINT else -how), err
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    if how is signal.SIGINT:
        assert b"Traceback" not in err + out
        assert err.endswith(b"interrupted\n")
