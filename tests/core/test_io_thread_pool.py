"""IOThreadPool as a collection: its threads, a call on each of them, a call for each item."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import ContextError, IOThread, IOThreadPool, block_on
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def where() -> str:
    return threading.current_thread().name


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@pytest.fixture
def pool() -> Iterator[IOThreadPool]:
    with IOThreadPool(3, name="home") as pool:
        yield pool


def test_it_is_a_collection_of_threads(pool: IOThreadPool):
    assert len(pool) == 3
    assert [thread.name for thread in pool] == ["home0", "home1", "home2"]
    assert all(type(thread) is IOThread for thread in pool)
    assert pool.name == "home"
    assert repr(pool) == "<IOThreadPool 'home' 3 running>"
    pool.threads[1].stop()
    assert repr(pool) == "<IOThreadPool 'home' 2 running, 1 ended>"
    assert repr(IOThreadPool(2)) == "<IOThreadPool 'io' 2 not started>"


def test_start_returns_what_was_started():
    io = IOThread("started").start()
    try:
        assert block_on(where(), io) == "started"
    finally:
        io.stop()
    pool = IOThreadPool(2).start()
    try:
        assert len({block_on(pool.spawn(where(), name="one")) for _ in range(2)}) == 2
    finally:
        pool.stop()


def test_a_pool_is_started_once():
    pool = IOThreadPool(2)
    with pool, pytest.raises(ContextError, match="was started before; make another one"):
        pool.start()
    with pytest.raises(ContextError, match="was started before"):
        pool.start()


def test_a_start_that_fails_says_why_and_can_be_repeated():
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        loop = homebound.new_event_loop()
        if len(made) == 1:
            loop.close()  # the second thread's
        made.append(loop)
        return loop

    pool = IOThreadPool(2, loop_factory=factory)
    with pytest.raises(homebound.ContextClosed, match=r"loop_factory gave .*closed"):
        pool.start()
    with pool:
        assert len({block_on(pool.spawn(where())) for _ in range(2)}) == 2


@pytest.mark.parametrize("make", [homebound.new_event_loop, asyncio.SelectorEventLoop])
def test_a_loop_for_all_threads_is_refused(make: Callable[[], asyncio.AbstractEventLoop]):
    loop = make()
    pool = IOThreadPool(3, name="web", loop_factory=lambda: loop)
    with pytest.raises(ContextError, match="IOThread 'web1': loop_factory gave a loop that anothe"):
        pool.start()
    assert loop.is_closed()  # by the end of the first thread


@pytest.mark.parametrize("make", [homebound.new_event_loop, asyncio.SelectorEventLoop])
def test_a_running_loop_is_refused(make: Callable[[], asyncio.AbstractEventLoop]):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wrong = homebound.IOThread("net", loop_factory=lambda: loop)
        with pytest.raises(ContextError, match="must make one at each call"):
            wrong.start()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


def test_spawn_each_has_one_at_each_home(pool: IOThreadPool):
    async def add(number: int, *, to: int) -> tuple[str, int]:
        return await where(), number + to

    tasks = pool.spawn_each(add, 1, to=2)
    assert [block_on(task) for task in tasks] == [("home0", 3), ("home1", 3), ("home2", 3)]

    async def main() -> list[str]:
        return await asyncio.gather(*pool.spawn_each(where))

    assert homebound.run(main()) == ["home0", "home1", "home2"]


def test_map_gives_results_in_the_order_of_the_items(pool: IOThreadPool):
    async def later(number: int, plus: int) -> int:
        await asyncio.sleep(0.01 * (3 - number))
        return number + plus

    assert list(pool.map(later, range(3), [10, 20, 30])) == [10, 21, 32]
    assert list(pool.map(double, [])) == []

    async def main() -> list[int]:  # inside a running loop
        return list(pool.map(double, range(5)))

    assert homebound.run(main()) == [0, 2, 4, 6, 8]


def test_map_begins_at_once_and_uses_every_home(pool: IOThreadPool):
    names: set[str] = set()
    begun = homebound.Barrier(3)

    async def meet(_: int) -> None:
        names.add(await where())
        await begun.wait()

    results = pool.map(meet, range(3))  # each waits for the others
    assert len(list(results)) == 3
    assert names == {"home0", "home1", "home2"}


def test_map_cancels_what_is_left_when_one_fails(pool: IOThreadPool):
    begun, cancelled = homebound.Queue[int](), homebound.Queue[int]()

    async def fail_or_wait(number: int) -> None:
        if number == 1:
            message = "the second"
            raise ValueError(message)
        if number:
            try:
                begun.put_nowait(number)
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.put_nowait(number)
                raise

    results = pool.map(fail_or_wait, range(4))
    assert next(results) is None
    assert {begun.get_sync(10), begun.get_sync(10)} == {2, 3}
    with pytest.raises(ValueError, match="the second"):
        next(results)
    assert {cancelled.get_sync(10), cancelled.get_sync(10)} == {2, 3}


def test_map_has_one_timeout_for_all(pool: IOThreadPool):
    with pytest.raises(TimeoutError):
        list(pool.map(asyncio.sleep, [3600, 3600], timeout=0.01))


def test_map_that_is_given_up_cancels_the_rest(pool: IOThreadPool):
    results = pool.map(asyncio.sleep, [0, 3600])
    next(results)
    (sleeper,) = asyncio.all_tasks(pool.threads[1].context.loop)
    results.close()  # type: ignore[attr-defined]
    until(sleeper.cancelled)


def test_a_pool_of_threads_not_started_says_so():
    pool = IOThreadPool(2)
    with pytest.raises(ContextError, match="start"):
        pool.spawn_each(where)
    with pytest.raises(ContextError, match="start"):
        pool.map(double, [1])


def test_where_a_thread_has_ended_nothing_is_left_running(pool: IOThreadPool):
    pool.threads[1].stop()
    with pytest.raises(homebound.ContextClosed):
        pool.map(asyncio.sleep, [3600, 3600])
    with pytest.raises(homebound.ContextClosed):
        pool.spawn_each(asyncio.sleep, 3600)
    until(lambda: not asyncio.all_tasks(pool.threads[0].context.loop))


def test_options_are_io_threads():
    with pytest.raises(TypeError, match="poll_max"):
        IOThreadPool(2, poll_max=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="poll_max_ns is -1"):
        IOThreadPool(2, poll_max_ns=-1)
