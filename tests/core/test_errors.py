"""Error messages: what was called, from which thread and context, and what to call instead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    AlreadyScheduled,
    ContextClosed,
    ContextError,
    IOThread,
    NotSuspended,
    WouldDeadlock,
    WrongThread,
    big_lock,
    block_on,
    current_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


@pytest.mark.parametrize(
    "kind", [WrongThread, AlreadyScheduled, NotSuspended, WouldDeadlock, ContextClosed]
)
def test_one_family(kind: type[Exception]):
    assert issubclass(kind, ContextError)
    assert issubclass(ContextError, RuntimeError)


def test_texts(io: IOThread, io2: IOThread):
    """Each text names the call, the thread and context that made it, and the alternative."""
    cases: list[tuple[Callable[[], object], type[Exception], list[str]]] = []

    async def suspended() -> None:
        await homebound.suspend()

    async def waiting() -> None:
        await future

    async def one_for_another() -> None:
        block_on(asyncio.sleep(0), io2.context)

    async def wait_for_another() -> None:
        homebound.wait_while(lambda: True, io2.context)

    async def own_stop() -> None:
        io.stop()

    future = io.context.loop.create_future()
    sleeper, waiter = io.spawn(suspended(), name="sleeper"), io.spawn(waiting(), name="waiter")
    finished = io.spawn(asyncio.sleep(0), name="finished")
    block_on(finished)
    block_on(io.spawn(asyncio.sleep(0)))
    cases += [
        (
            io.context.poll,
            WrongThread,
            ["poll", "'io'", "thread 'MainThread'", "no current context", "only its home"],
        ),
        (finished.wake, NotSuspended, ["wake", "finished", "cannot be entered"]),
        (big_lock.release, WrongThread, ["big_lock.release", "does not hold", "only its holder"]),
        (
            lambda: homebound.wait_while(lambda: True),
            WouldDeadlock,
            ["wait_while turns a loop", "thread 'MainThread'", "block_on(x, ctx) works in any"],
        ),
        (
            lambda: block_on(io.spawn(one_for_another())),
            WouldDeadlock,
            ["block_on", "thread 'io'", "'io2'", "await it instead"],
        ),
        (
            lambda: block_on(io.spawn(wait_for_another())),
            WouldDeadlock,
            ["wait_while", "thread 'io'", "'io2'"],
        ),
        (lambda: block_on(io.spawn(own_stop())), WouldDeadlock, ["IOThread.stop", "thread 'io'"]),
    ]
    for act, kind, parts in cases:
        with pytest.raises(kind) as caught:
            act()
        for part in parts:
            assert part in str(caught.value)
    sleeper.wake()
    io.context.call_soon(future.set_result, None)
    for task in (sleeper, waiter):
        block_on(task)


def test_a_home_is_named_in_its_threads_errors():
    async def main() -> None:
        me = homebound.current_task()
        assert me is not None
        with pytest.raises(NotSuspended, match=r"thread 'MainThread' \(current context 'main'\)"):
            me.wake()
        with pytest.raises(WouldDeadlock, match=r"big_lock\.acquire.*not recursive.*held\(\)"):
            big_lock.acquire()
        with pytest.raises(ContextError, match="use an IOThread for a second loop"):
            await homebound.to_worker(lambda: homebound.run(asyncio.sleep(0)))
        assert current_context() is homebound.main_context()

    homebound.run(main())
