"""Waits that look like a deadlock and are none, and so are not reported."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    Barrier,
    IOThread,
    Lock,
    big_lock,
    block_on,
)
from homebound._debug.deadlock import look_twice
from homebound._debug.stall import Look
from homebound._sync import holders as _holders
from homebound.testing import settle_sync

from .deadlocks import (
    both,
    dumped,
    hold,
    nothing_told,
    settle,
    take,
    until,
    waits,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

pytestmark = pytest.mark.usefixtures("watched")


def test_a_chain_is_none(io: IOThread, io2: IOThread):
    one, two, held = Lock(), Lock(), threading.Event()
    last = io.spawn(hold(two, held), name="last")
    held.wait(20)
    middle = io2.spawn(both(one, two, Barrier(1)), name="middle")
    waits(two)
    first = io.spawn(take(one), name="first")
    waits(one)
    nothing_told()
    assert "task 'first': waits for the Lock, held by task 'middle'" in dumped()
    last.wake()
    block_on(middle)
    block_on(first)
    block_on(last)


async def with_timeout(lock: Any) -> None:
    async with asyncio.timeout(1000), lock:
        pass


async def with_wait_for(lock: Any) -> None:
    await asyncio.wait_for(take(lock), 1000)


async def in_a_group(lock: Any) -> None:
    async with asyncio.timeout(1000), homebound.TaskGroup() as group:
        group.create_task(take(lock))


async def gathered(lock: Any) -> None:
    async with asyncio.timeout(1000):
        await asyncio.gather(take(lock))


async def cancelled_later(lock: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(1000, task.cancel)
    async with lock:
        pass


async def released_later(lock: Any) -> None:
    asyncio.get_running_loop().call_later(1000, lock.release)
    async with lock:
        pass


async def as_a_thread(lock: Lock) -> None:
    lock.acquire_sync(timeout=1000)


async def blocked_on(lock: Lock) -> None:
    block_on(take(lock), timeout=1000)


@pytest.mark.parametrize(
    "waits_for",
    [
        with_timeout,
        with_wait_for,
        in_a_group,
        gathered,
        cancelled_later,
        released_later,
        as_a_thread,
        blocked_on,
    ],
)
def test_a_wait_with_a_timeout_is_none(waits_for: Any, io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock:
            await waits_for(lock)

    task = io.spawn(twice())
    waits(lock)
    nothing_told()
    settle(task)


def test_a_thread_with_a_timeout_is_none(in_thread: InThread, io: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)

    def in_order() -> bool:
        with one:
            have_one.wait_sync()
            return two.acquire_sync(timeout=1000)

    thread = in_thread(in_order)
    task = io.spawn(both(two, one, have_one))
    waits(one)
    waits(two)
    nothing_told()
    settle(task)
    assert thread.result(20)


def test_a_waiter_that_is_cancelled_meanwhile(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    tasks = [io.spawn(both(one, two, have_one)), io2.spawn(both(two, one, have_one))]
    until(look_twice)
    look = Look(1.0)
    assert look(0) == []
    settle(*tasks)
    assert look(2) == []


def test_the_same_parties_in_new_waits_are_not_the_same_deadlock(io: IOThread, io2: IOThread):
    """Two looks find the same tasks and locks, which were free of each other in between."""
    one, two, have_one = Lock(), Lock(), Barrier(2)

    async def again() -> None:
        async with one:
            await have_one.wait()
            try:
                await two.acquire()
            except asyncio.CancelledError:
                async with two:
                    pass

    tasks = [io.spawn(again(), name="a"), io2.spawn(both(two, one, have_one), name="b")]
    look = Look(1.0)
    [before] = until(look_twice)
    assert look(0) == []
    tasks[0].cancel()
    until(lambda: any(not each.is_that(before) for each in look_twice()))
    settle_sync()  # as in nothing_told
    assert look(1) == []
    assert len(look(2)) == 1
    settle(*tasks)


def test_a_lock_used_as_a_gate_is_none(in_thread: InThread):
    """A lock taken by `acquire` and waited for: another task may release it."""
    gate = Lock()

    def wait_for_it() -> None:
        gate.acquire_sync()
        gate.acquire_sync()

    thread = in_thread(wait_for_it)
    waits(gate)
    nothing_told()
    gate.release()
    thread.result(20)


def test_a_lock_taken_before_the_watch_is_none(io: IOThread):
    lock, held = Lock(), threading.Event()
    _holders.end()  # the fixture's watch
    first = io.spawn(hold(lock, held), name="first")
    held.wait(20)
    _holders.begin()
    second = io.spawn(take(lock), name="second")
    waits(lock)
    assert "'second': waits for the Lock, held by an unknown holder: holders are" in dumped()
    nothing_told()
    first.wake()
    block_on(second)
    assert "Lock" not in dumped()


def test_a_record_of_an_earlier_watch_is_ignored(io: IOThread):
    lock, held = Lock(), threading.Event()

    async def hold_on() -> None:
        await lock.acquire()

    block_on(hold_on(), io.context)  # recorded
    _holders.end()
    lock.release()
    holder = io.spawn(hold(lock, held))
    held.wait(20)
    _holders.begin()
    assert _holders.holders(lock, None) == ()
    holder.wake()
    block_on(holder)


def test_another_task_of_the_home_may_have_it(io: IOThread):
    """`with lock:` in a task lets the loop run."""
    lock, held = Lock(), threading.Event()
    holder = io.spawn(hold(lock, held), name="holder")
    held.wait(20)

    async def as_a_thread() -> None:
        with lock:
            pass

    waiter = io.spawn(as_a_thread(), name="waiter")
    waits(lock)
    nothing_told()
    holder.wake()
    block_on(waiter)


def test_a_wait_while_is_shown(io: IOThread):
    """A predicate names no task or thread, so whether it will become false is unknown."""
    done: list[None] = []

    def not_yet() -> bool:
        return not done

    async def waits_for_it() -> None:
        homebound.wait_while(not_yet, io.context)

    task = io.spawn(waits_for_it())
    until(lambda: "its home waits in wait_while(<function" in dumped())
    nothing_told()
    done.append(None)
    homebound.kick()
    block_on(task)


def test_a_stand_in_that_runs_the_main_loop_is_none(in_thread: InThread):
    """The main thread waits for the big lock, but its tasks run all the same."""
    told: list[Any] = []

    async def busy(left: int) -> None:
        for _ in range(left):
            told.extend(look_twice())
            await asyncio.sleep(0)

    def stand_in(context: Any) -> None:
        with big_lock:
            context._signal.set()
            until(lambda: big_lock._waiters)  # the main thread
            block_on(busy(50), context)

    async def main() -> None:
        context = homebound.current_context()
        await asyncio.wrap_future(in_thread(stand_in, context))

    homebound.run(main())
    assert told == []


@pytest.mark.parametrize("how", ["block_on", "join", "shutdown", "lock"])
def test_a_wait_about_to_release_the_big_lock_is_none(how: str, io: IOThread, in_thread: InThread):
    """A wait is announced first, and then releases the lock: this look comes in between."""
    lock, held = Lock(), threading.Event()
    told: list[Any] = []

    def locked() -> None:
        with big_lock:
            pass

    async def needs_it() -> None:
        async with lock:
            held.set()
            locked()

    def before_it_lets_go(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is type(big_lock).release.__code__:
            sys.setprofile(None)
            until(lambda: "1 waiting" in repr(big_lock))
            told.append(look_twice())

    def wait() -> None:
        with big_lock, IOThread() as other, homebound.WorkerPool() as pool:
            if how == "shutdown":
                pool.submit(locked)
            else:
                (other if how == "join" else io).spawn(needs_it())
                held.wait(20)
            sys.setprofile(before_it_lets_go)
            if how == "block_on":
                block_on(asyncio.sleep(0), io.context)
            elif how == "join":
                other.stop()
            elif how == "shutdown":
                pool.shutdown()
            else:
                lock.acquire_sync()

    in_thread(wait).result(20)
    assert told == [[]]
