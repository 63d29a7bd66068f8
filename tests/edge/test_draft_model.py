"""A smaller model that guesses: whatever it is worth, the answer is the model's own, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.draft import summary
from benchmarks.draft_measures import Turn, agreement, answer, probabilities
from edge import cli
from edge.chat.drafts import DraftModel
from edge.chat.sampling import Sampling, sample
from edge.chat.speculation import Counts, Speculation
from edge.runtimes import Runtime, open_runtime
from tests.edge.engines import ENGINES, random_ids, write_variant

Tiny = Callable[..., Path]
TOKENS = 40


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def models(
    engine: str, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Runtime, Runtime, Runtime]]:
    """A model, itself once more (a draft that is always right), and another model of its tokenizer."""
    directory = tmp_path_factory.mktemp(engine)
    (directory / "a").mkdir()
    (directory / "b").mkdir()
    own = write_variant(engine, tiny("phi4-mini"), directory / "a", context=256)
    other = write_variant(engine, tiny("phi4-mini", seed=9), directory / "b", context=256)
    with ExitStack() as opened:
        first, again, another = (
            opened.enter_context(closing(open_runtime(path, threads=1, exact=True)))
            for path in (own, own, other)
        )
        yield first, again, another


def guessed(runtime: Runtime, draft: Runtime, least: float = 0.0) -> Turn:
    # float32 engines differ by 1e-5 between a token alone and among others: no tie of a random model is as near.
    speculation = Speculation(runtime, DraftModel(draft, least), 6, exact=False)
    return answer(runtime, random_ids(30), TOKENS, speculation, stop=False)


@pytest.mark.parametrize("least", [0.0, 0.3, 0.999])
def test_greedy_tokens_are_identical_with_a_good_draft_and_with_a_bad_one(
    models: tuple[Runtime, Runtime, Runtime], least: float
) -> None:
    runtime, itself, other = models
    plain = answer(runtime, random_ids(30), TOKENS, None, stop=False)
    assert len(plain.tokens) == TOKENS
    good, bad = guessed(runtime, itself, least), guessed(runtime, other, least)
    assert good.tokens == bad.tokens == plain.tokens
    assert good.counts
    assert bad.counts
    if not least:
        assert good.counts.acceptance > 0.8  # what is guessed past the answer's end is not accepted
        assert bad.counts.acceptance < good.counts.acceptance
        assert bad.counts.drafted > 0
    if least == 0.999:  # a random model is never as sure
        assert good.counts.drafted == bad.counts.drafted == 0


def test_a_draft_says_only_what_it_is_sure_of(models: tuple[Runtime, Runtime, Runtime]) -> None:
    """Every guess has the probability that is asked for, and the token after the last one has not."""
    _, _, other = models
    ids, least = random_ids(30), 0.0
    for _ in range(20):
        found = DraftModel(other, least).propose(ids, 5)
        logits = other.teacher_forced([*ids, *found], first=len(ids) - 1)
        sure = probabilities(logits).max(axis=-1)
        assert (sure[: len(found)] >= least).all()
        assert [int(i) for i in logits[: len(found)].argmax(axis=-1)] == found
        if len(found) < 5:
            assert sure[len(found)] < least
            break
        least = float(np.sort(sure)[2])  # some of these are below it
    else:
        pytest.fail("never unsure")
    again = DraftModel(other, least)
    assert again.propose(ids, 5) == found == again.propose(ids, 5)  # what its cache holds changes nothing


def test_a_person_who_names_a_draft_gets_the_same_answer(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp; --inexact, as float32 products of a token alone and among others differ in their last bits."""
    monkeypatch.setattr("sys.stdin", None)
    paths = []
    for name, seed in (("model", 0), ("draft", 9)):
        (tmp_path / name).mkdir()
        checkpoint = tiny("phi4-mini", seed=seed)
        paths.append(str(write_variant("gguf", checkpoint, tmp_path / name, context=256)))
    told = []
    for options in ([], ["--draft", paths[1]], ["--draft", paths[0]]):
        words = ["chat", "-m", paths[0], "one two", "-n", "24", "--threads", "1", "--inexact", "--json"]
        assert cli.main([*words, *options]) == 0
        told.append(json.loads(capsys.readouterr().out))
    plain, bad, good = told
    assert plain["answer"] == bad["answer"] == good["answer"]
    assert "speculation" not in plain
    assert bad["speculation"]["acceptance"] <= good["speculation"]["acceptance"]


def random_logits(scale: float) -> np.ndarray:
    return np.random.default_rng(int(scale * 10)).normal(0, scale, (200, 30)).astype(np.float32)


def test_the_chance_of_acceptance_is_one_minus_total_variation() -> None:
    """And it is what the papers' rule accepts: x from q, kept with probability min(1, p(x) / q(x))."""
    target, draft = random_logits(2.0), random_logits(1.5)
    p, q = probabilities(target), probabilities(draft)
    found = agreement(target, draft)
    assert found["sampled"] == pytest.approx(float((1 - 0.5 * np.abs(p - q).sum(axis=-1)).mean()), abs=1e-12)
    random = np.random.default_rng(3)
    kept = []
    for own, other in zip(p, q, strict=True):
        drawn = random.choice(30, size=500, p=other)
        kept.append((random.random(500) < np.minimum(1, own[drawn] / other[drawn])).mean())
    # 100 000 draws: a standard error below 0.0016.
    assert np.mean(kept) == pytest.approx(found["sampled"], abs=0.006)
    assert agreement(target, target) == pytest.approx(
        {"top1": 1.0, "sampled": 1.0, "drawn": float(p.max(axis=-1).mean())}
    )


def test_our_guesses_are_accepted_as_often_as_the_model_would_draw_them() -> None:
    """A draft that names its likeliest token is q = 1 there: min(1, p / q) is p of that token."""
    target, draft = random_logits(2.0), random_logits(1.5)
    random, sampling = np.random.default_rng(3), Sampling(temperature=1.0)
    hits = [
        np.mean([sample(own, sampling, [], random) == other.argmax() for _ in range(200)])
        for own, other in zip(target, draft, strict=True)
    ]
    # 40 000 draws of events of probability below 0.2: a standard error below 0.002.
    assert np.mean(hits) == pytest.approx(agreement(target, draft)["drawn"], abs=0.008)


def test_a_summary_counts_tokens_and_takes_the_best_run_of_each() -> None:
    alone = [[Turn((1, 2, 3), 4.0, 4.0, None), Turn((1, 2, 3), 2.0, 2.0, None)]]
    fast = [[Turn((1, 2, 3), 1.0, 2.0, Counts(1, 3, 1)), Turn((1, 2, 3), 3.0, 4.0, Counts(1, 3, 1))]]
    row = summary(fast, alone)
    assert (row["tokens"], row["guessed"], row["right"], row["runs"]) == (2, 3, 1, 1)
    assert (row["wall_ratio"], row["cpu_ratio"], row["tokens_per_run"]) == (2.0, 1.0, 2.0)
    assert summary(alone, alone)["acceptance"] is None
