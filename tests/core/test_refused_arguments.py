"""Arguments that fit the like in other libraries, and not ours: what is said."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import threading

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import NBDDisk

from .wrong_uses import LONGEST, PRIVATE, call, work

Row = tuple[str, str]

COROUTINES: list[Row] = [
    (
        "io.spawn(work, 1)",
        "spawn takes a coroutine, not a function and its arguments: call it, spawn(work(...))",
    ),
    ("io.context.spawn(work, 1)", "call it, spawn(work(...))"),
    ("pool.spawn(work, 1)", "call it, spawn(work(...))"),
    ("Background('b').spawn(work, 1)", "call it, spawn(work(...))"),
    ("create_task(work, 1)", "call it, create_task(work(...))"),
    (
        "io.spawn(work(), 'name')",
        "spawn takes one coroutine, and its options by keyword: got 'name' after work()",
    ),
    ("create_task(work(), io)", "options by keyword: got <IOThread 'io' running> after work()"),
    (
        (
            "async def main():\n    async with TaskGroup() as group:\n"
            "        try: group.create_task(work, 1)\n"
            "        except TypeError as error: said = error\n"
            "    raise said\nrun(main())"
        ),
        "call it, create_task(work(...))",
    ),
]

NAMES: list[Row] = [
    ("Lock(name=3)", "Lock: the name is 3; it must be a str"),
    ("RWLock(name=3)", "RWLock: the name is 3; it must be a str"),
    ("Event(name=b'e')", "Event: the name is b'e'; it must be a str"),
    ("Semaphore(1, name=3)", "Semaphore: the name is 3"),
    ("BoundedSemaphore(1, name=3)", "BoundedSemaphore: the name is 3"),
    ("Condition(name=3)", "Condition: the name is 3"),
    ("Barrier(2, name=3)", "Barrier: the name is 3"),
    ("Queue(name=3)", "Queue: the name is 3"),
    ("LifoQueue(name=3)", "LifoQueue: the name is 3"),
    ("IOThreadPool(2, name=3)", "IOThreadPool: the name is 3"),
    ("WorkerPool(2, name=3)", "WorkerPool: the name is 3"),
    ("VCPU(0, print, name=3)", "VCPU: the name is 3"),
]

LOCKS: list[Row] = [
    (
        "Condition(asyncio.Lock())",
        "the lock is of type asyncio.locks.Lock; it must be a homebound.Lock, for which",
    ),
    ("Condition(RWLock())", "the lock is of type homebound.RWLock; it must be a homebound.Lock"),
    (
        "async def main():\n    async with big_lock: pass\nrun(main())",
        "big_lock is acquired by a thread, not by a task: `with big_lock:`, and no await in it",
    ),
]

REST: list[Row] = [
    ("block_on(work(), 5)", "got 5; a limit in seconds is given by keyword, timeout="),
    (
        "with RWLock(name='db'): pass",
        "RWLock 'db' is acquired for reading or for writing: `async with",
    ),
    (
        "async def main():\n    async with RWLock(): pass\nrun(main())",
        "or `async with rw.write():` in a task, `with` in a thread",
    ),
    (
        "MemoryDisk(512).write_sync(b'data', 0)",
        "first the offset, then the bytes; got b'data', then 0",
    ),
    (
        "MemoryDisk(512).read_sync(0.5, 1)",
        "a range is an offset and a length, in bytes; got 0.5 and 1",
    ),
]

ALL = COROUTINES + NAMES + LOCKS + REST
PLACES = {name: getattr(homebound, name) for name in homebound.__all__} | {
    "MemoryDisk": MemoryDisk,
    "asyncio": asyncio,
    "call": call,
    "threading": threading,
    "work": work,
}


@pytest.mark.parametrize(("program", "text"), ALL, ids=[row[0] for row in ALL])
def test_it_says_what_is_taken(program: str, text: str, io: homebound.IOThread):
    names = PLACES | {"io": io}
    with homebound.IOThreadPool(1) as pool, pytest.raises(TypeError) as caught:
        exec(textwrap.dedent(program), names | {"pool": pool})
    said = str(caught.value)
    assert text in said
    assert len(said) <= LONGEST
    assert not PRIVATE.search(said)
    assert homebound.run(asyncio.sleep(0, "went on")) == "went on"


def test_the_signature_shows_what_is_taken():
    """Not what is taken only to be refused."""
    for function in (
        homebound.AioContext.spawn,
        homebound.IOThread.spawn,
        homebound.IOThreadPool.spawn,
        homebound.Background.spawn,
    ):
        assert [*inspect.signature(function).parameters] == ["self", "coro", "name", "context"]
    assert [*inspect.signature(homebound.create_task).parameters] == [
        "coro",
        "home",
        "name",
        "context",
    ]


def test_a_port_is_no_descriptor():
    with pytest.raises(
        OSError, match="10809 is no descriptor of a socket; a port stands in an NBD"
    ):
        homebound.run(NBDDisk.connect(10809))


def test_refused_coroutines_are_closed(io: homebound.IOThread):
    coroutines = work(), work()
    with pytest.raises(TypeError, match="takes one coroutine"):
        io.spawn(*coroutines)  # type: ignore[arg-type]
    assert {*map(inspect.getcoroutinestate, coroutines)} == {inspect.CORO_CLOSED}


def test_the_big_lock_is_left_alone_by_async_with():
    async def main() -> bool:
        with pytest.raises(TypeError):
            async with homebound.big_lock:  # type: ignore[attr-defined]
                pass
        return homebound.big_lock.held()

    assert homebound.run(main())
    assert not homebound.big_lock.held()
