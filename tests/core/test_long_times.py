"""Timeouts that mean "forever, but with a number": whatever threading or asyncio take."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import VCPU, IOThread, WorkerPool, big_lock, block_on
from homebound.testing import VirtualClock, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

MONTH = 30 * 86400
LONG = [MONTH, 2_200_000.0, threading.TIMEOUT_MAX, math.inf]
long_times = pytest.mark.parametrize("timeout", LONG)


@long_times
def test_waits_on_locks_in_threads(in_thread: InThread, timeout: float):
    event = homebound.Event()
    waits = in_thread(event.wait_sync, timeout)
    until(lambda: "waiters:1" in repr(event))
    event.set()
    assert waits.result(20)

    lock = homebound.Lock()
    assert lock.acquire_sync(timeout)
    waits = in_thread(lock.acquire_sync, timeout)
    until(lambda: "waiters:1" in repr(lock))
    lock.release()
    assert waits.result(20)

    queue = homebound.Queue[str]()
    waits = in_thread(queue.get_sync, timeout)
    until(lambda: "_getters[1]" in repr(queue))
    queue.put_nowait("item")
    assert waits.result(20) == "item"


class Wait:
    """A wait on a lock or queue, in a thread or home, or in a task, and what ends it."""

    def __init__(self, it: Any, name: str, end: Callable[[], object], *args: Any) -> None:
        self.it = it
        self.sync = partial(getattr(it, f"{name}_sync"), *args)
        self.task = partial(getattr(it, name), *args)
        self.end = end

    def is_waited_for(self) -> bool:
        """Return whether the wait has begun."""
        joined = self.it._unfinished._waiters if isinstance(self.it, homebound.Queue) else ()
        return bool(joined) or any(
            sign in repr(self.it) for sign in ("waiters:1", "_getters[1]", "_putters[1]")
        )


class ConditionWait(Wait):
    """A wait on a condition, for which the waiter needs its lock."""

    def __init__(self) -> None:
        condition = homebound.Condition()
        super().__init__(condition, "wait", self.notify)
        self.sync, self.task = self.wait_sync, self.wait  # type: ignore[assignment]

    def notify(self) -> None:
        with self.it:
            self.it.notify()

    def wait_sync(self, timeout: float) -> bool:
        with self.it:
            return bool(self.it.wait_sync(timeout))

    async def wait(self) -> None:
        async with self.it:
            await self.it.wait()


def held(it: Any, name: str = "acquire", first: str = "acquire_sync") -> Wait:
    """Acquire it, so that the next has to wait."""
    getattr(it, first)()
    return Wait(it, name, it.release)


def queued(it: Any) -> Any:
    """Put something into a queue."""
    it.put_nowait(1)
    return it


def at_an_event() -> Wait:
    event = homebound.Event()
    return Wait(event, "wait", event.set)


def at_a_barrier() -> Wait:
    barrier = homebound.Barrier(2)
    return Wait(barrier, "wait", barrier.wait_sync)


def for_an_item() -> Wait:
    queue = homebound.PriorityQueue[int]()
    return Wait(queue, "get", partial(queue.put_nowait, 1))


def for_room() -> Wait:
    queue = queued(homebound.Queue[int](1))
    return Wait(queue, "put", queue.get_nowait, 1)


def for_the_last_task() -> Wait:
    queue = queued(homebound.LifoQueue[int]())
    return Wait(queue, "join", queue.task_done)


LOCKS: dict[str, Callable[[], Wait]] = {
    "Lock": lambda: held(homebound.Lock()),
    "Semaphore": lambda: held(homebound.Semaphore(1)),
    "BoundedSemaphore": lambda: held(homebound.BoundedSemaphore(1)),
    "RWLock, read": lambda: held(homebound.RWLock(), "acquire_read", "acquire_write_sync"),
    "RWLock, write": lambda: held(homebound.RWLock(), "acquire_write", "acquire_read_sync"),
    "Event": at_an_event,
    "Barrier": at_a_barrier,
    "Condition": ConditionWait,
    "get": for_an_item,
    "put": for_room,
    "join": for_the_last_task,
}


@pytest.mark.parametrize("place", ["thread", "home", "task"])
@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("timeout", [*LONG, 1e12, float(sys.maxsize)])
def test_each_lock_and_queue(
    in_thread: InThread, io: IOThread, kind: str, timeout: float, place: str
):
    """threading refuses the longest of them, asyncio takes all."""
    wait = LOCKS[kind]()

    async def at_home() -> None:
        wait.sync(timeout)

    async def in_task() -> None:
        await asyncio.wait_for(wait.task(), timeout)

    if place == "thread":
        waiting = in_thread(wait.sync, timeout)
    else:
        waiting = in_thread(block_on, io.spawn(at_home() if place == "home" else in_task()))
    until(wait.is_waited_for)
    wait.end()
    waiting.result(20)


@long_times
def test_the_big_lock(in_thread: InThread, timeout: float):
    def take() -> bool:
        if not big_lock.acquire(timeout):
            return False
        big_lock.release()
        return True

    big_lock.acquire(timeout)
    waits = in_thread(take)
    until(lambda: "1 waiting" in repr(big_lock))
    big_lock.release()
    assert waits.result(20)


@long_times
def test_block_on_and_wait_while(io: IOThread, in_thread: InThread, timeout: float):
    soon = asyncio.sleep

    async def main() -> str:
        homebound.wait_while(iter([True, False]).__next__, timeout=timeout)
        await asyncio.wait_for(soon(0.001), timeout)
        return block_on(soon(0.001, "at home"), timeout=timeout)

    assert block_on(soon(0.001, "sleeps"), io.context, timeout=timeout) == "sleeps"
    elsewhere = partial(block_on, soon(0.001, "in a thread"), io.context, timeout=timeout)
    assert in_thread(elsewhere).result(20) == "in a thread"
    assert homebound.run(main()) == "at home"


@long_times
def test_join_and_stop(in_thread: InThread, timeout: float):
    io = IOThread()
    io.start()
    ended = in_thread(io.join, timeout)
    io.stop(timeout)
    ended.result(20)
    vcpu = VCPU(0, VCPU.halt)
    vcpu.start()
    ended = in_thread(vcpu.join, timeout)
    vcpu.stop(timeout)
    ended.result(20)


@long_times
def test_idle_workers(timeout: float):
    with WorkerPool(idle_timeout=timeout) as pool:
        first = pool.submit(threading.get_ident).result(20)
        for _ in range(3):
            until(lambda: " 1 idle" in repr(pool))
            assert pool.submit(threading.get_ident).result(20) == first
    assert "0 threads" in repr(pool)


@pytest.mark.parametrize("timeout", [*LONG, 1e12, float(sys.maxsize)])
def test_a_shutdown_with_a_limit(timeout: float):
    pool = WorkerPool()
    assert pool.submit(sum, [1]).result(20) == 1
    pool.shutdown(timeout=timeout)
    assert "0 threads" in repr(pool)


@long_times
def test_a_stand_in_beside_the_timer_of_another(timeout: float):
    """The stand-in sleeps until the main loop's next timer, however far that is."""
    told = homebound.Event()

    def stand_in() -> bool:
        with big_lock:
            return block_on(told.wait())

    async def main() -> bool:
        timer = asyncio.get_running_loop().call_later(timeout, print)
        waits = asyncio.ensure_future(homebound.to_worker(stand_in))
        while "waiters:1" not in repr(told):
            await asyncio.sleep(0)
        await homebound.to_worker(told.set)
        timer.cancel()
        return await waits

    assert homebound.run(main())


@long_times
def test_a_loop_that_sleeps_until_its_timer(io: IOThread, timeout: float):
    timers = io.context.loop
    io.context.call_soon(timers.call_later, timeout, print)
    assert block_on(asyncio.sleep(0.001, "awake"), io.context) == "awake"


@long_times
def test_a_stall_watch_that_hardly_ever_looks(timeout: float):
    with homebound.watch_stalls(timeout) as watch:
        assert block_on_nothing() == "done"
        assert watch._thread.is_alive()


def block_on_nothing() -> str:
    return homebound.run(asyncio.sleep(0, "done"))


def test_virtual_time_does_not_jump_to_a_deadline_that_means_forever(virtual_clock: VirtualClock):
    """A sleep forever, with a number, is no deadline for the virtual clock."""

    async def main() -> float:
        forever = asyncio.create_task(asyncio.sleep(math.inf))
        await asyncio.sleep(MONTH)
        forever.cancel()
        return virtual_clock.now()

    assert homebound.run(main()) == MONTH


def test_a_month_under_the_virtual_clock(virtual_clock: VirtualClock, io: IOThread):
    assert not homebound.Event().wait_sync(MONTH)
    with pytest.raises(TimeoutError):
        block_on(homebound.Event().wait(), io.context, timeout=MONTH)
    assert virtual_clock.now() == 2 * MONTH


def test_nan_is_refused_before_anything_begins(io: IOThread, in_thread: InThread):
    """NaN is refused as by threading: such a timeout would neither expire nor be pending."""
    lock = homebound.Lock()
    lock.acquire_sync()
    refused = pytest.raises(ValueError, match="NaN")
    with refused:
        in_thread(lock.acquire_sync, math.nan).result(20)
    assert "waiters" not in repr(lock)
    with big_lock, refused:
        in_thread(big_lock.acquire, math.nan).result(20)
    assert big_lock.acquire(0)
    big_lock.release()
    for context in (io.context, None):
        with refused:
            block_on(never_begun(), context, timeout=math.nan)
    with pytest.raises(ValueError, match="idle_timeout"):
        WorkerPool(idle_timeout=math.nan)


def test_a_timer_set_for_nan_is_due_and_keeps_no_other_back(io: IOThread):
    async def work() -> list[str]:
        rang: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(math.nan, rang.append, "NaN")
        loop.call_later(0.001, rang.append, "other")
        await asyncio.sleep(0.01)
        return rang

    assert sorted(block_on(io.spawn(work()), timeout=20)) == ["NaN", "other"]


async def never_begun() -> None:
    raise AssertionError
