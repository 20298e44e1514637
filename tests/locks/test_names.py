"""Names of locks and queues, and what their reprs tell: state, holders where known, waiters."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable

MAKERS: dict[str, Callable[..., Any]] = {
    "Lock": homebound.Lock,
    "RWLock": homebound.RWLock,
    "Semaphore": homebound.Semaphore,
    "BoundedSemaphore": homebound.BoundedSemaphore,
    "Event": homebound.Event,
    "Condition": homebound.Condition,
    "Barrier": lambda **options: homebound.Barrier(2, **options),
    "Queue": homebound.Queue,
    "PriorityQueue": homebound.PriorityQueue,
    "LifoQueue": homebound.LifoQueue,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_stands_in_the_repr(kind: str):
    made = MAKERS[kind](name="db")
    assert made.name == "db"
    assert re.match(rf"<(homebound\.(\w+\.)*)?{kind} 'db' ", repr(made))
    assert " at 0x" not in repr(made)


@pytest.mark.parametrize("kind", MAKERS)
def test_without_a_name_it_is_as_asyncios(kind: str):
    made = MAKERS[kind]()
    assert made.name is None
    assert " at 0x" in repr(made)


async def hold(lock: homebound.Lock, held: homebound.Event, let_go: homebound.Event) -> None:
    async with lock:
        held.set()
        await let_go.wait()


def test_a_repr_tells_who_has_it_while_that_is_watched(io: IOThread):
    lock, held, let_go = homebound.Lock(name="db"), homebound.Event(), homebound.Event()
    with homebound.watch_stalls(60):
        task = io.spawn(hold(lock, held, let_go), name="writer")
        assert held.wait_sync(10)
        waiter = io.spawn(hold(lock, held, let_go), name="next")
        block_on(io.spawn(asyncio.sleep(0)))
        assert repr(lock).endswith(" 'db' held by task 'writer' [locked, waiters:1]>")
        let_go.set()
        for each in (task, waiter):
            block_on(each)
        with lock:
            me = threading.current_thread().name
            assert repr(lock).endswith(f" 'db' held by thread {me!r} [locked]>")
    assert repr(lock).endswith(" 'db' [unlocked]>")
    with lock:  # no record is kept
        assert repr(lock).endswith(" 'db' [locked]>")


def test_a_dump_calls_it_by_its_name(io: IOThread, capsys: pytest.CaptureFixture[str]):
    lock = homebound.Lock(name="db")
    queue: homebound.Queue[int] = homebound.Queue(name="jobs")
    done = homebound.Event()
    with lock:
        waiter = io.spawn(hold(lock, done, done))
        getter = io.spawn(queue.get())
        block_on(io.spawn(asyncio.sleep(0)))
        homebound.dump()
    told = "".join(capsys.readouterr())
    assert "Lock 'db'" in told
    assert "Queue 'jobs'" in told
    done.set()
    queue.put_nowait(1)
    assert block_on(getter) == 1
    block_on(waiter)
