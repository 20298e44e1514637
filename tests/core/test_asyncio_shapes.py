"""The private fields of asyncio's objects that the search for deadlocks reads."""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from homebound._aio.entered import awaited_coroutines, entered
from homebound._aio.shapes import (
    cancelled_along,
    gathered,
    loop_kept_by,
    sleeps,
    thread_frames,
    thread_that_runs,
    timers_of,
    touched_by,
    waits_for,
)

if TYPE_CHECKING:
    from types import FrameType

    from homebound.testing import Threads


def test_a_thread_stands_where_its_innermost_frame_is(threads: Threads):
    mine = thread_frames()[threading.get_ident()]
    assert mine is sys._getframe()
    inside, leave = threading.Event(), threading.Event()
    idents = []

    def stand() -> None:
        idents.append(threading.get_ident())
        inside.set()
        leave.wait()

    threads.start(stand)
    inside.wait()
    stack = []
    frame: FrameType | None = thread_frames()[idents[0]]
    while frame is not None:
        stack.append(frame.f_code)
        frame = frame.f_back
    assert stand.__code__ in stack
    leave.set()


def test_the_thread_that_runs_a_loop():
    async def main() -> int | None:
        return thread_that_runs(asyncio.get_running_loop())

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) == threading.get_ident()
    assert thread_that_runs(loop) is None
    assert thread_that_runs(None) is None
    loop.close()


def test_timers():
    loop = asyncio.new_event_loop()
    assert timers_of(loop) == []
    kept = loop.call_later(3600, partial(print, "a"), "b")
    loop.call_later(3600, print).cancel()
    assert timers_of(loop) == [kept]
    assert {"a", "b"} <= {each for each in touched_by(kept) if isinstance(each, str)}
    assert timers_of(object()) is None
    loop.close()


def test_a_timeout_touches_its_task():
    async def main() -> None:
        async with asyncio.timeout(3600):
            [timer] = timers_of(asyncio.get_running_loop()) or []
            assert asyncio.current_task() in list(touched_by(timer))
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_sleep_ends_when_its_timer_says():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sleeper = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        future = waits_for(sleeper)
        given, when = sleeps(loop)[id(future)]
        assert given is future
        assert 3500 < when - loop.time() <= 3600
        assert id(loop.create_future()) not in sleeps(loop)
        assert loop_kept_by(future) is loop
        sleeper.cancel()

    asyncio.run(main())


def test_what_is_cancelled_along():
    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        one = asyncio.create_task(forever())
        both = asyncio.gather(one, asyncio.create_task(forever()))
        children = gathered(both)
        assert children is not None
        assert one in children
        assert gathered(one) is None
        assert both in list(cancelled_along(one))
        outer = asyncio.shield(one)
        assert outer in list(cancelled_along(one))
        waiter = asyncio.create_task(asyncio.wait([one], timeout=3600))
        await asyncio.sleep(0)
        assert waiter not in list(cancelled_along(one))  # its time limit cancels no other task
        waiter.cancel()
        both.cancel()
        await asyncio.gather(waiter, both, return_exceptions=True)

    asyncio.run(main())


def test_what_is_gathered_is_cancelled_with_it():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future(), loop.create_future()]
        together = asyncio.gather(*futures)
        assert gathered(together) == futures
        together.cancel()
        assert all(future.cancelled() for future in futures)

    asyncio.run(main())


def test_the_parent_of_a_task_group_is_cancelled_along():
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(3600))
            assert asyncio.current_task() in list(cancelled_along(child))
            child.cancel()

    asyncio.run(main())


def test_an_rlock_knows_whether_the_calling_thread_holds_it(in_thread: Any):
    lock: Any = _thread.RLock()
    assert not lock._is_owned()
    with lock, lock:
        assert lock._is_owned()
        assert not in_thread(lock._is_owned).result(10)
    assert not lock._is_owned()


def test_a_suspended_coroutine_refers_to_what_it_has_entered():
    class Slow(asyncio.Lock):
        async def __aenter__(self) -> None:
            await asyncio.sleep(0)

    async def inside(lock: asyncio.Lock, mutex: Any) -> None:
        async with lock:
            with mutex:  # not an `async with`
                async with Slow(), given:
                    await asyncio.sleep(3600)

    async def outside(lock: asyncio.Lock) -> None:
        other = asyncio.Lock()
        async with other:
            pass
        await inside(lock, threading.Lock())

    given = asyncio.Lock()

    async def main() -> None:
        lock = asyncio.Lock()
        task = asyncio.create_task(outside(lock))
        await asyncio.sleep(0)
        outer, inner, slow, *_ = [
            (each.__name__, list(entered(each))) for each in awaited_coroutines(task)
        ]
        assert outer == ("outside", [])
        assert (inner[0], slow) == ("inside", ("__aenter__", []))
        assert inner[1][0] is lock
        assert isinstance(inner[1][1], Slow)  # it is about to enter that
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        managers = list(entered(list(awaited_coroutines(task))[1]))
        assert managers[::2] == [lock, given]
        assert len(managers) == 3
        task.cancel()
        await asyncio.wait([task])
        assert list(awaited_coroutines(task)) == []

    asyncio.run(main())
    assert list(entered(object())) == []
