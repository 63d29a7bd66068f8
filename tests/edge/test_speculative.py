"""Guessed tokens change how fast an answer comes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.errors import UnsupportedError
from edge.chat import commands
from edge.chat.drafts import Drafter, DraftModel, PromptLookup, check_vocabulary
from edge.chat.sampling import Sampling
from edge.chat.session import Session, Settings
from edge.chat.speculation import Speculation
from edge.runtimes import Runtime, open_runtime
from edge.sources import cache, resolve
from tests.edge.engines import ENGINES, SWITCH, Scripted, largest, random_ids, write_variant

Tiny = Callable[..., Path]


@pytest.fixture(scope="module", params=ENGINES)
def variant(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    return write_variant(request.param, tiny("phi4-mini"), directory, context=4352)


@pytest.fixture(scope="module")
def runtime(variant: Path) -> Iterator[Runtime]:
    opened = open_runtime(variant, threads=1, exact=True)
    yield opened
    opened.close()


class Oracle:
    """Knows the answer, and errs at every `wrong`th place (0: never)."""

    name = "oracle"

    def __init__(self, whole: Sequence[int], wrong: int = 0) -> None:
        self.whole, self.wrong = list(whole), wrong

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        places = range(len(ids), min(len(ids) + count, len(self.whole)))
        return [5 if self.wrong and i % self.wrong == 0 else self.whole[i] for i in places]


def write_on(runtime: Runtime, prompt: list[int], count: int, drafter: Drafter | None) -> list[int]:
    """Greedy tokens after `prompt`, in the way that a session asks for them."""
    runtime.rewind(0)
    logits = runtime.append(prompt)
    ids = list(prompt)
    # The float32 engines differ by 1e-5 between a token alone and among others: no tie of a random model is as near.
    speculation = Speculation(runtime, drafter, 8, exact=False) if drafter else None
    if speculation:
        speculation.start(ids)
    while len(ids) < len(prompt) + count:
        ids.append(int(np.argmax(logits)))
        if len(ids) < runtime.context_length:
            logits = speculation.append(ids) if speculation else runtime.append(ids[-1:])
    return ids


def test_rows_of_one_run_are_those_of_single_steps(runtime: Runtime) -> None:
    ids = random_ids(60)
    runtime.rewind(0)
    runtime.append(ids[:40])
    single = np.stack([runtime.append([i]) for i in ids[40:]])
    runtime.rewind(40)
    rows = runtime.append_all(ids[40:])
    assert rows.dtype == np.float32
    assert rows.shape == single.shape
    assert largest(rows - single) < 1e-3  # another order of sums; a row too early or late is off by 1
    assert runtime.position == 60


@pytest.mark.parametrize("wrong", [0, 3, 1])
def test_greedy_answers_are_identical_however_good_the_guesses(runtime: Runtime, wrong: int) -> None:
    prompt = random_ids(50)
    plain = write_on(runtime, prompt, 60, None)
    assert write_on(runtime, prompt, 60, Oracle(plain, wrong)) == plain
    assert write_on(runtime, prompt, 60, PromptLookup()) == plain


def test_greedy_answers_are_identical_across_the_longrope_switch(runtime: Runtime) -> None:
    prompt = random_ids(SWITCH - 6)
    plain = write_on(runtime, prompt, 12, None)
    assert write_on(runtime, prompt, 12, Oracle(plain)) == plain


def test_greedy_answers_are_identical_up_to_a_full_context(variant: Path) -> None:
    runtime = open_runtime(variant, context_length=64, threads=1, exact=True)
    prompt = random_ids(40)
    plain = write_on(runtime, prompt, 24, None)
    assert write_on(runtime, prompt, 24, Oracle(plain)) == plain
    assert runtime.position <= 64
    runtime.close()


def session(runtime: Runtime, drafter: Drafter | None, **sampling: float) -> Session:
    settings = Settings(Sampling(**sampling), seed=7, max_tokens=40)  # type: ignore[arg-type]
    runtime.rewind(0)
    return Session(
        runtime,
        settings=settings,
        speculation=Speculation(runtime, drafter, 6, exact=False) if drafter else None,
    )


@pytest.mark.parametrize(
    "sampling", [{}, {"repeat_penalty": 1.3}, {"temperature": 0.9, "top_p": 0.95}, {"temperature": 2.0}]
)
def test_a_seed_gives_the_same_conversation(
    runtime: Runtime, variant: Path, sampling: dict[str, float]
) -> None:
    questions = ["one two three one two three one", "and so on and so on and"]
    plain = session(runtime, None, **sampling)
    answers = ["".join(plain.ask(question)) for question in questions]
    model = open_runtime(variant, threads=1, exact=True)
    for drafter in (PromptLookup(), DraftModel(model)):
        guessed = session(runtime, drafter, **sampling)
        assert ["".join(guessed.ask(question)) for question in questions] == answers
    model.close()


def test_a_model_that_drafts_for_itself_is_always_right(runtime: Runtime, variant: Path) -> None:
    model = open_runtime(variant, threads=1, exact=True)
    talk = session(runtime, DraftModel(model))
    "".join(talk.ask("hello"))
    model.close()
    assert talk.last is not None
    counts = talk.last.speculation
    assert counts is not None
    assert counts.drafted >= counts.accepted >= 20
    # The last guesses of an answer may go past its end.
    assert counts.accepted >= counts.drafted - 6
    assert counts.tokens_per_step > 4
    assert f"{counts.accepted} of {counts.drafted} guessed tokens" in commands.stats(talk.last, 4352)
    assert talk.last.to_data()["speculation"]["acceptance"] == round(counts.acceptance, 4)


def test_lookup_says_what_followed_the_latest_like_place() -> None:
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 9, 1, 2, 4, 8, 7, 1, 2], 3) == [4, 8, 7]
    assert lookup.propose([5, 1, 2, 6, 4, 1, 2, 7, 5, 1, 2], 2) == [6, 4]  # three alike go before two
    assert lookup.propose([1, 2, 1, 2], 8) == [1, 2]
    assert lookup.propose([1, 2, 3, 4], 8) == []
    assert lookup.propose([], 8) == lookup.propose([1], 8) == lookup.propose([1, 2], 8) == []


class Rounding(Scripted):
    """Adds `alone` to a row that runs alone and `others` to the rows of longer runs, per row beside it."""

    def __init__(self, alone: float, others: float) -> None:
        super().__init__([b"a", b"b"] * 30)
        self.alone, self.others, self.widths = alone, others, set[int]()

    def append(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.widths.add(len(ids))
        return super().append(ids) + np.float32(self.alone if len(ids) == 1 else 0)

    def append_all(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.widths.add(len(ids))
        rows = [Scripted.append(self, [i]) for i in ids]
        return np.stack(rows) + np.float32(self.others * len(ids))


@pytest.mark.parametrize(
    ("alone", "others", "exact", "note"),
    [
        (0.0, 0.0, True, None),
        (
            0.5,
            0.0,
            False,
            "scripted rounds a token that runs alone otherwise than one among others (here by 0.5)",
        ),
        (0.5, 0.0, True, "no speculation: scripted rounds a token that runs alone otherwise than one among"),
        (0.0, 0.25, False, "no speculation: scripted rounds a token's logits by what runs beside it"),
    ],
)
def test_an_engine_that_rounds_by_company_is_noticed(
    alone: float, others: float, exact: bool, note: str | None
) -> None:
    notes: list[str] = []
    engine = Rounding(alone, others)
    speculation = Speculation(engine, PromptLookup(), 4, notes.append, exact=exact)
    talk = Session(engine, settings=Settings(seed=1, max_tokens=9), speculation=speculation)
    list(talk.ask("hi"))
    engine.widths.clear()
    assert "".join(talk.ask("hi")) == "ababababa"
    assert [line[: len(note or "")] for line in notes] == ([note] if note else [])
    if note and note.startswith("no speculation"):
        assert talk.last is not None
        assert talk.last.speculation is not None
        assert talk.last.speculation.drafted == 0
    elif alone:
        assert 1 not in engine.widths  # a token never runs alone, guesses or not


def test_a_draft_of_another_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    paths = [
        write_variant("onnx", tiny(name), tmp_path / name, context=256)
        for name in ("phi4-mini", "phi3-mini-4k")
    ]
    target, draft = (open_runtime(path) for path in paths)
    with pytest.raises(UnsupportedError, match=r"the draft model has \d+ tokens, the model \d+|token \d+ is"):
        check_vocabulary(target, draft)
    check_vocabulary(target, target)
    target.close()
    draft.close()


def test_the_embedded_model_says_the_same_with_lookup() -> None:
    """Real int4 weights; the file as its package has it.

    llama.cpp gives a token the same bits alone and among eight, but others among a whole prompt.
    """
    [file] = [f for f in resolve("smollm2-135m-instruct").files if f.path.endswith(".gguf")]
    path = cache.place("files", file.sha256, Path(file.path).name)
    runtime = open_runtime(path, context_length=512, threads=1)
    notes: list[str] = []
    answers = []
    for speculation in (None, Speculation(runtime, PromptLookup(), 8, notes.append)):
        runtime.rewind(0)
        talk = Session(runtime, settings=Settings(seed=1, max_tokens=24), speculation=speculation)
        answers.append("".join(talk.ask("Write the numbers from one to ten as words, twice.")))
    runtime.close()
    assert notes or answers[0] == answers[1]  # another machine's kernels may differ, and then it is said
    assert talk.last is not None
    assert talk.last.speculation is not None
    assert talk.last.speculation.accepted > 0
