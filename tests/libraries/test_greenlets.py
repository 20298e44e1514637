"""Synchronous code in greenlets: SQLAlchemy's, greenback's, plain ones, and gevent's threads.

A loop run from a child greenlet would pass values to the wrong greenlets. So block_on suspends the
task through the library whose greenlet it is, or raises.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, block_on

if TYPE_CHECKING:
    from collections.abc import Callable

Run = Any


async def give(value: Any) -> Any:
    await asyncio.sleep(0.001)
    return value


async def fail() -> None:
    await asyncio.sleep(0)
    raise LookupError


def many_times(await_only: Callable[[Any], Any], name: str) -> list[str]:
    """Synchronous code that waits in both ways."""
    found = []
    for number in range(5):
        found.append(await_only(give(f"{name} {number}")))
        found.append(block_on(give(f"{name} {number}, nested")))
    return found


def expected(name: str) -> list[str]:
    return [f"{name} {number}{how}" for number in range(5) for how in ("", ", nested")]


def test_block_on_under_sqlalchemy(run: Run):
    """Several at once: each greenlet gets its own values."""
    util = pytest.importorskip("sqlalchemy.util")

    async def main() -> None:
        names = "one", "two", "three"
        results = await asyncio.gather(
            *(util.greenlet_spawn(many_times, util.await_only, name) for name in names)
        )
        assert results == [expected(name) for name in names]

    run(main())


def test_block_on_under_greenback(run: Run):
    greenback = pytest.importorskip("greenback")

    async def child(name: str) -> list[str]:
        await greenback.ensure_portal()
        return many_times(greenback.await_, name)

    async def main() -> None:
        await greenback.ensure_portal()
        names = "one", "two", "three"
        assert await asyncio.gather(*map(child, names)) == [expected(name) for name in names]
        assert block_on(child("nested")) == expected("nested")
        assert await greenback.with_portal_run(child, "run") == expected("run")
        async with homebound.IOThread() as io:
            assert await io.spawn(child("there")) == expected("there")
            assert block_on(give("there"), io.context) == "there"
        later = asyncio.create_task(asyncio.sleep(0.001, "bestowed"))
        greenback.bestow_portal(later)
        assert await later == "bestowed"

    run(main())


def test_what_block_on_promises_holds_under_greenback(run: Run):
    """Exceptions, a timeout, the cancellation of the task outside, and what runs now."""
    greenback = pytest.importorskip("greenback")
    cleaned: list[str] = []

    async def sleeper() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("cleaned")

    async def waits() -> None:
        await greenback.ensure_portal()
        block_on(sleeper())

    async def main() -> None:
        await greenback.ensure_portal()
        me = homebound.current_task()
        with pytest.raises(LookupError):
            block_on(fail())
        with pytest.raises(TimeoutError):
            block_on(sleeper(), timeout=0.001)
        assert cleaned == ["cleaned"]
        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert cleaned == ["cleaned"] * 2
        assert homebound.current_task() is me

    run(main())


def test_a_greenlet_of_an_unknown_library_is_refused(run: Run):
    greenlet = pytest.importorskip("greenlet")

    async def main() -> None:
        context: Any = homebound.current_context()
        calls = (
            lambda: block_on(give(1)),
            lambda: homebound.wait_while(lambda: True),
            lambda: context.poll(blocking=False),
        )
        for call in calls:
            with pytest.raises(ContextError, match="greenlet"):
                greenlet.greenlet(call).switch()
        assert block_on(give(2)) == 2  # here it is allowed
        async with homebound.Lock() as _:
            pass
        assert await give(3) == 3

    run(main())


def test_a_thread_may_be_in_any_greenlet():
    """The thread runs no loop, so block_on in a greenlet of its own disturbs nothing."""
    greenlet = pytest.importorskip("greenlet")

    def guest() -> list[int]:
        queued = greenlet.greenlet(lambda: block_on(give(1))).switch()
        with homebound.big_lock:
            inline = greenlet.greenlet(lambda: block_on(give(2))).switch()
        return [queued, inline]

    async def main() -> None:
        assert await asyncio.to_thread(guest) == [1, 2]

    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        runner.run(main())


GEVENT = """
    import sys
    if sys.argv[1] == "late":
        import homebound
    from gevent import monkey
    monkey.patch_all(thread=sys.argv[2] != "without threads")
    import asyncio, homebound

    async def give(value):
        await asyncio.sleep(0.01)
        return value

    async def threads():
        found = [await homebound.to_worker(lambda: 4)]
        async with homebound.IOThread() as io:
            found.append(await io.spawn(give(5)))
        return found

    async def main():
        print(await give(1), await asyncio.create_task(give(2)), homebound.block_on(give(3)))
        try:
            print(*await threads())
        except homebound.ContextError as error:
            print(error)

    homebound.run(main())
"""


@pytest.mark.parametrize("when", ["first", "late"])
def test_threads_that_gevent_has_patched(program: Callable[..., str], when: str):
    """Patched threads are greenlets of one thread, and no homes; a single loop runs."""
    pytest.importorskip("gevent")
    one, two = program(GEVENT, when, "with threads").splitlines()
    assert one == "1 2 3"
    assert "gevent has replaced this process's threads by greenlets" in two
    assert program(GEVENT, when, "without threads").splitlines() == ["1 2 3", "4 5"]
