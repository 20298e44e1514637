"""Deadlocks through locks and tasks, each made by real threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    Barrier,
    IOThread,
    Lock,
    RWLock,
    Semaphore,
    block_on,
    to_worker,
)
from homebound._debug.deadlock import look_twice
from homebound._debug.stall import Look
from homebound.testing import settle_sync

from .deadlocks import (
    both,
    deadlock,
    dumped,
    plain,
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


# Locks.


def test_two_tasks_take_two_locks_in_different_order(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    tasks = [
        io.spawn(both(one, two, have_one), name="a"),
        io2.spawn(both(two, one, have_one), name="b"),
    ]
    [found] = until(look_twice)
    assert plain(found) == (
        "deadlock: task 'a' waits for the Lock; the Lock is held by task 'b'; "
        "task 'b' waits for the Lock; the Lock is held by task 'a'"
    )
    stacks = "\n".join(found.stacks())
    assert stacks.count("in both") == 2
    assert "task 'a':" in stacks
    text = dumped()
    assert text.startswith("deadlock: ")
    assert "task 'a': waits for the Lock, held by task 'b'" in text
    settle(*tasks)
    assert look_twice() == []


def test_with_acquire_two_locks_in_different_order(io: IOThread, in_thread: InThread):
    """Locks taken by `acquire`: two of them, so neither is a gate."""
    one, two, have_one = Lock(), Lock(), Barrier(2)

    def in_order() -> None:
        one.acquire_sync()
        have_one.wait_sync()
        with two:
            one.release()

    async def other_order() -> None:
        await two.acquire()
        await have_one.wait()
        try:
            await one.acquire()
        finally:
            two.release()

    thread = in_thread(in_order)
    task = io.spawn(other_order(), name="other")
    told = deadlock()
    assert "thread 'plain0' waits for the Lock" in told
    assert "the Lock is held by task 'other'" in told
    assert "the Lock is held by thread 'plain0'" in told
    assert "thread 'plain0' waits for the Lock, held by task 'other'" in dumped()
    settle(task)
    thread.result(20)


def test_a_thread_takes_the_lock_it_holds(in_thread: InThread):
    lock = Lock()

    def twice() -> None:
        with pytest.raises(RuntimeError, match="not acquired"), lock, lock:
            pass

    thread = in_thread(twice)
    assert deadlock() == (
        "deadlock: the Lock is held by thread 'plain0'; thread 'plain0' waits for the Lock"
        " (a Lock is not recursive: its holder must not acquire it again)"
    )
    lock.release()
    thread.result(20)


def test_a_task_takes_the_lock_it_holds(io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock, lock:
            pass

    task = io.spawn(twice(), name="twice")
    assert deadlock() == (
        "deadlock: task 'twice' waits for the Lock; the Lock is held by task 'twice'"
        " (a Lock is not recursive: its holder must not acquire it again)"
    )
    settle(task)


def test_a_task_takes_the_lock_it_holds_synchronously(io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock:
            with lock:
                pass

    task = io.spawn(twice(), name="twice")
    told = deadlock()
    assert "the Lock is held by task 'twice'" in told
    assert "task 'twice' waits for task " in told
    assert "its holder must not acquire it again" in told
    settle(task)


def test_a_home_waits_for_a_task_below_the_wait(io: IOThread):
    """The loop runs, so another task of the home may have the lock, but no task below the wait."""
    lock = Lock()

    async def upper() -> None:
        with lock:
            pass

    async def lower() -> None:
        async with lock:
            block_on(upper())

    task = io.spawn(lower(), name="lower")
    told = deadlock()
    assert "the Lock is held by task 'lower'" in told
    settle(task)


def test_a_reader_reads_again_behind_a_writer(io: IOThread):
    lock = RWLock()
    reads, go_on = threading.Event(), homebound.Event()

    async def reader() -> None:
        async with lock.read():
            reads.set()
            await go_on.wait()
            async with lock.read():
                pass

    first = io.spawn(reader(), name="reader")
    reads.wait(20)
    second = io.spawn(take(lock.write()), name="writer")
    waits(lock)
    assert look_twice() == []
    go_on.set()
    told = deadlock()
    assert "task 'reader' waits to read the RWLock, behind the writer task 'writer'" in told
    assert "task 'writer' waits to write the RWLock" in told
    assert "the RWLock is held by task 'reader'" in told
    assert "task 'writer': waits to write the RWLock [readers:1], held by task 'reader'" in dumped()
    settle(first, second)


def test_a_writer_and_a_lock(io: IOThread, io2: IOThread):
    rw, lock, have_one = RWLock(), Lock(), Barrier(2)
    tasks = [
        io.spawn(both(rw.write(), lock, have_one), name="a"),
        io2.spawn(both(lock, rw.read(), have_one), name="b"),
    ]
    told = deadlock()
    assert "task 'b' waits to read the RWLock" in told
    assert "the RWLock is held by task 'a'" in told
    settle(*tasks)


def test_a_semaphore_whose_holders_all_wait(io: IOThread, io2: IOThread):
    semaphore, have_one = Semaphore(2), Barrier(3)
    go_on = threading.Event()

    async def patient() -> None:
        async with semaphore:
            await have_one.wait()
            await to_worker(go_on.wait, 20)
            async with semaphore:
                pass

    tasks = [
        io.spawn(both(semaphore, semaphore, have_one), name="a"),
        io2.spawn(patient(), name="b"),
    ]
    have_one.wait_sync()
    waits(semaphore)
    assert look_twice() == []  # the other task may release its permit
    go_on.set()
    told = deadlock()
    assert "waits for the Semaphore; the Semaphore is held, one of 2 permits, by task" in told
    assert "waits for a permit of the Semaphore, held by task" in dumped()
    settle(*tasks)


def test_a_task_of_asyncios_own(io: IOThread, in_thread: InThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(both(one, two, have_one), name="theirs")
        await asyncio.wait([task])

    thread = in_thread(asyncio.run, main())
    ours = io.spawn(both(two, one, have_one), name="ours")
    told = deadlock()
    assert "task 'theirs' waits for the Lock" in told
    assert "the Lock is held by task 'theirs'" in told
    assert "held by task 'ours'" in dumped()
    settle(ours)
    thread.result(20)


def test_two_rings_in_one_look(io: IOThread, io2: IOThread):
    pairs = [(Lock(), Lock(), Barrier(2)) for _ in range(2)]
    tasks = []
    for one, two, have_one in pairs:
        tasks += [io.spawn(both(one, two, have_one)), io2.spawn(both(two, one, have_one))]
    look = Look(1.0)
    until(lambda: len(look_twice()) == 2)
    settle_sync()  # the homes, whose stalls the watch would also report, are asleep
    assert look(0) == []
    stalls = look(1)
    assert [stall.kind for stall in stalls] == ["deadlock", "deadlock"]
    assert len({stall.message for stall in stalls}) == 2
    assert look(2) == []  # once each
    settle(*tasks)


# Tasks.


def test_tasks_await_each_other(io: IOThread, io2: IOThread):
    tasks: dict[str, Any] = {}
    both_there = homebound.Event()

    async def awaits(name: str) -> None:
        await both_there.wait()
        await tasks[name]

    tasks["a"] = io.spawn(awaits("b"), name="a")
    tasks["b"] = io2.spawn(awaits("a"), name="b")
    both_there.set()
    assert deadlock() == "deadlock: task 'a' waits for task 'b'; task 'b' waits for task 'a'"
    assert "task 'a': waits for task 'b', at home in 'io2'" in dumped()
    # Each passes a cancellation on to the other: one must end in another way.
    for task in tasks.values():
        task._home.call_soon(task._resume_with, RuntimeError("enough"))
    for task in tasks.values():
        with pytest.raises(RuntimeError, match="enough"):
            block_on(task)


def test_a_task_awaits_itself_through_gather(io: IOThread):
    go_on = asyncio.Event()

    async def gathers() -> None:
        me = asyncio.current_task()
        assert me is not None
        await asyncio.gather(me, go_on.wait())

    task = io.spawn(gathers(), name="ouroboros")
    until(lambda: "waits for a gather of task 'ouroboros', task " in dumped())
    assert look_twice() == []  # the other may fail, and end it
    io.context.call_soon(go_on.set)
    assert deadlock() == (
        "deadlock: a gather waits for task 'ouroboros'; task 'ouroboros' waits for a gather"
    )
    io.context.call_soon(task._resume_with, RuntimeError("enough"))
    with pytest.raises(RuntimeError, match="enough"):
        block_on(task)
