"""The one thread that the engine runs in: what nobody waits for ends, and what follows is sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from pathlib import Path

import pytest

from edge.runtimes import open_runtime
from edge.runtimes.protocol import Interruptible
from edge.serving.errors import ApiError
from edge.serving.worker import GivenUpError, Worker
from tests.edge import own_loop
from tests.edge.engines import ENGINES, random_ids, write_variant

Tiny = Callable[..., Path]


def test_the_worker_stops_what_nobody_waits_for() -> None:
    """Work that would never end by itself ends with its reader, and what waits behind it is done, in order."""
    ended: list[str] = []

    def endless(check: Callable[[], None]) -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append("endless")

    def deaf(check: Callable[[], None]) -> Generator[int]:
        """As the reading of a long prompt: no yield, but it checks."""
        yield 0
        try:
            while True:
                check()
        except GivenUpError:
            ended.append("deaf")
            raise

    def short(name: str) -> Callable[[Callable[[], None]], Generator[int]]:
        def work(check: Callable[[], None]) -> Generator[int]:
            ended.append(name)
            yield 2

        return work

    async def everything(events: AsyncGenerator[int]) -> list[int]:
        async with aclosing(events):
            return [event async for event in events]

    async def scene() -> None:
        for work in (endless, deaf):
            async with aclosing(worker.run(work)) as events:
                await anext(events)
                waiting = [asyncio.ensure_future(everything(worker.run(short(name)))) for name in ("a", "b")]
                await asyncio.sleep(0)
                with pytest.raises(ApiError) as full:
                    await everything(worker.run(short("c")))
                assert full.value.status == 429
            assert await asyncio.gather(*waiting) == [[2], [2]]
        worker.drain()
        with pytest.raises(ApiError) as stopping:
            await everything(worker.run(short("d")))
        assert stopping.value.status == 503

    worker: Worker[int] = Worker(2)
    try:
        own_loop.run(scene())
    finally:
        worker.close()
    assert ended == ["endless", "a", "b", "deaf", "a", "b"]


def test_a_panic_ends_one_answer_and_not_the_thread() -> None:
    """Rust code that gives up raises what is no Exception (pyo3): whoever comes next must not wait for ever."""

    class PanicException(BaseException):
        pass

    def panics(check: Callable[[], None]) -> Generator[int]:
        yield 1
        raise PanicException("index out of bounds")

    def sound(check: Callable[[], None]) -> Generator[int]:
        yield 2

    async def scene() -> None:
        with pytest.raises(RuntimeError, match="PanicException: index out of bounds"):
            assert [event async for event in worker.run(panics)]
        assert [event async for event in worker.run(sound)] == [2]

    worker: Worker[int] = Worker(1)
    try:
        own_loop.run(scene())
    finally:
        worker.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_that_is_given_up_leaves_a_sound_cache(engine: str, tiny: Tiny, tmp_path: Path) -> None:
    runtime = open_runtime(write_variant(engine, tiny("phi4-mini"), tmp_path, context=2048), threads=1)
    assert isinstance(runtime, Interruptible)
    ids = random_ids(1300)
    whole = runtime.append(ids)
    runtime.rewind(0)

    def give_up() -> None:
        raise GivenUpError

    runtime.between = give_up
    with pytest.raises(GivenUpError):
        runtime.append(ids)
    assert 0 < runtime.position < len(ids)
    runtime.between = lambda: None
    # In the batches of the whole prompt: bit for bit the same.
    assert (runtime.append(ids[runtime.position :]) == whole).all()
    runtime.close()
