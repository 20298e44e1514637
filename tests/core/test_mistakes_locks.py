"""Wrong uses of locks and queues: a program as typed, and what that says."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import homebound

from .wrong_uses import TIMEOUT, Row, check_program

LOCKS: list[Row] = [
    ("Lock().release()", RuntimeError, "`await lock.acquire()` in a task, lock.acquire_sync() in"),
    ("Lock().acquire(timeout=1)", TypeError, "acquire() got an unexpected keyword argument"),
    ("lock = Lock(); lock.acquire_sync(); lock.acquire_sync('5')", TypeError, TIMEOUT),
    (
        "Condition(threading.Lock())",
        TypeError,
        "the lock is of type _thread.lock; it must be a homebound.Lock",
    ),
    ("Condition().notify()", RuntimeError, "in `async with condition:`, or in a thread"),
    ("Semaphore(-1)", ValueError, "Semaphore: the initial value is -1; it must be at least 0"),
    ("Barrier('2')", TypeError, "Barrier: parties is '2'; it must be a whole number"),
    ("Queue('3')", TypeError, "Queue: maxsize is '3'; it must be a number"),
    (
        "queue = Queue(name='jobs')\nqueue.shutdown()\nqueue.put_nowait(1)",
        homebound.QueueShutDown,
        "Queue 'jobs' was shut down: it takes no more items",
    ),
    (
        "queue = Queue(name='jobs')\nqueue.shutdown()\nqueue.get_sync()",
        homebound.QueueShutDown,
        "Queue 'jobs' was shut down, and has no more items",
    ),
    ("import copy; copy.copy(Lock())", TypeError, "share it, or make another Lock"),
    ("Lock(name='db').release()", RuntimeError, "Lock 'db' is not acquired, and cannot be rel"),
    ("RWLock(name='db').release()", RuntimeError, "RWLock 'db' is not acquired, and cannot be"),
    ("RWLock().downgrade()", RuntimeError, "no writer holds it; it comes after acquire_write()"),
    ("RWLock().upgrade_sync()", RuntimeError, "no reader holds it; it comes after acquire_read()"),
    (
        (
            "rw = RWLock(name='db'); rw.acquire_read_sync(); rw.acquire_read_sync()\n"
            "rw.upgrade_sync(timeout=0)"
        ),
        TimeoutError,
        "RWLock 'db' could not be upgraded in 0 s: others hold it or were first",
    ),
    (
        "BoundedSemaphore(2, name='slots').release()",
        ValueError,
        "BoundedSemaphore 'slots' released too many times: it has all 2 permits already",
    ),
    ("Condition(Lock)", TypeError, "Condition: the lock is the class Lock; call it: it makes one"),
    (
        "Condition(name='news').notify()",
        RuntimeError,
        "Condition 'news': cannot notify on un-acquired lock; call it in `async with condition:`",
    ),
    (
        "condition = Condition()\nwith condition: condition.wait_for_sync(work)",
        TypeError,
        "Condition.wait_for_sync takes a plain function, and work is async",
    ),
    (
        (
            "async def main():\n    condition = Condition()\n"
            "    async with condition: await condition.wait_for(True)\nrun(main())"
        ),
        TypeError,
        "Condition.wait_for takes a function, not True",
    ),
    (
        "Barrier(2, name='start').wait_sync(timeout=0)",
        TimeoutError,
        "Barrier 'start': 2 parties were not there after 0 s",
    ),
    (
        "start = Barrier(2, name='start'); start.abort_sync(); start.wait_sync()",
        asyncio.BrokenBarrierError,
        "Barrier 'start' aborted: nothing passes it before a reset()",
    ),
    ("Queue(float('nan'))", ValueError, "Queue: maxsize is NaN; it must be a number"),
    (
        "Queue(name='jobs').task_done()",
        ValueError,
        "Queue 'jobs': task_done() called too many times; call it once for each item",
    ),
]


@pytest.mark.parametrize(("program", "kind", "text"), LOCKS)
@pytest.mark.filterwarnings("ignore:coroutine 'acquire' was never awaited:RuntimeWarning")
def test_it_says_what_is_wrong_and_what_to_do(
    program: str, kind: type[BaseException], text: str, io: homebound.IOThread
):
    check_program(program, kind, text, io)


async def nested_in_a_task(lock: homebound.Lock) -> None:
    async with lock, lock:
        pass


async def nested_in_a_call(lock: homebound.Lock) -> None:
    with lock, lock:
        pass


@pytest.mark.parametrize("wrong", [nested_in_a_task, nested_in_a_call])
def test_a_lock_acquired_again_is_reported_by_name(wrong: Any, io: homebound.IOThread):
    told = threading.Event()
    stalls: list[homebound.Stall] = []

    def report(stall: homebound.Stall) -> None:
        if stall.kind == "deadlock":
            stalls.append(stall)
            told.set()

    with homebound.watch_stalls(0.05, report=report):
        task = io.spawn(wrong(homebound.Lock(name="db")), name="owner")
        told.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            homebound.block_on(task)
    assert "the Lock 'db' is held by task 'owner'" in stalls[0].message
    assert "a Lock is not recursive: its holder must not acquire it again" in str(stalls[0])
