"""Ours against what every lock and queue must do, in tasks of every loop; and asyncio's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import homebound
from homebound.testing import Case, lock_cases, queue_cases


class Writing:
    """A RWLock that is only written."""

    def __init__(self) -> None:
        self.rw = homebound.RWLock()
        self.acquire = self.rw.acquire_write
        self.acquire_sync = self.rw.acquire_write_sync
        self.release = self.rw.release
        self.locked = self.rw.locked

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __enter__(self) -> None:
        self.acquire_sync()

    def __exit__(self, *_: object) -> None:
        self.release()


class Reading(Writing):
    """A RWLock that is held by one reader at a time: each comes as a writer, and downgrades."""

    def __init__(self) -> None:
        super().__init__()
        self.acquire = self._acquire
        self.acquire_sync = self._acquire_sync

    async def _acquire(self) -> bool:
        await self.rw.acquire_write()
        self.rw.downgrade()
        return True

    def _acquire_sync(self, timeout: float | None = None) -> bool:
        got = self.rw.acquire_write_sync(timeout)
        if got:
            self.rw.downgrade()
        return got


LOCKS = [homebound.Lock, Writing, Reading, homebound.BoundedSemaphore, homebound.Condition]
QUEUES: dict[Any, Any] = {
    homebound.Queue: "fifo",
    homebound.LifoQueue: "lifo",
    homebound.PriorityQueue: "priority",
}
STOCK_QUEUES: dict[Any, Any] = {
    asyncio.Queue: "fifo",
    asyncio.LifoQueue: "lifo",
    asyncio.PriorityQueue: "priority",
}
ON_ONE_LOOP = [case.name for case in lock_cases(one_loop=True)]


def full_name(factory: type) -> str:
    return f"{factory.__module__.split('.')[0]}.{factory.__name__}"


@pytest.mark.parametrize("case", lock_cases())
@pytest.mark.parametrize("factory", LOCKS)
def test_lock(factory: Any, case: Case):
    case(factory)


@pytest.mark.parametrize("case", lock_cases())
def test_semaphore(case: Case):
    if case.name == "refuses a release too many":
        pytest.skip("a semaphore may be released without having been acquired")
    case(homebound.Semaphore)


@pytest.mark.parametrize("name", ON_ONE_LOOP)
@pytest.mark.parametrize("factory", [*LOCKS, asyncio.Lock], ids=full_name)
def test_lock_in_tasks_of_any_loop(run: Any, factory: Any, name: str):
    dict(lock_cases(run=run, one_loop=True))[name](factory)


@pytest.mark.parametrize("name", [case.name for case in queue_cases()])
@pytest.mark.parametrize("factory", QUEUES)
def test_queue(factory: Any, name: str):
    dict(queue_cases(order=QUEUES[factory]))[name](factory)


@pytest.mark.parametrize("name", [case.name for case in queue_cases(one_loop=True)])
@pytest.mark.parametrize("factory", [*QUEUES, *STOCK_QUEUES], ids=full_name)
def test_queue_in_tasks_of_any_loop(run: Any, factory: Any, name: str):
    order = (QUEUES | STOCK_QUEUES)[factory]
    dict(queue_cases(order=order, run=run, one_loop=True))[name](factory)
