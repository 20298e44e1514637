"""The conformance suites: planted bugs in locks and queues are found, and nothing else is."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from functools import partial
from typing import Any

import pytest

import homebound
from homebound.testing import (
    check_executor,
    check_lock,
    check_loop,
    check_queue,
    lock_cases,
    queue_cases,
)

from .failed_cases import failed_cases

# Locks with a bug.


class Barging(homebound.Lock):
    """Lets a task that comes just at the release in, before the waiters."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.queue: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> bool:
        while self.held:
            future = asyncio.get_running_loop().create_future()
            self.queue.append(future)
            try:
                await future
            finally:
                if future in self.queue:
                    self.queue.remove(future)
        self.held = True
        return True

    def release(self) -> None:
        if not self.held:
            raise RuntimeError
        self.held = False
        while self.queue:
            future = self.queue.popleft()
            if not future.done():
                future.set_result(None)
                return

    def locked(self) -> bool:
        return self.held

    async def __aenter__(self) -> None:  # type: ignore[override]
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:  # type: ignore[override]
        self.release()


class LosesHandOver(Barging):
    """Hands over at release, and loses the lock if the waiter has been cancelled by then."""

    async def acquire(self) -> bool:
        if self.held:
            future = asyncio.get_running_loop().create_future()
            self.queue.append(future)
            await future
        self.held = True
        return True

    def release(self) -> None:
        if not self.held:
            raise RuntimeError
        if self.queue:
            future = self.queue.popleft()
            if not future.done():
                future.set_result(None)
        else:
            self.held = False


class LastInFirstOut(LosesHandOver):
    def release(self) -> None:
        self.queue.reverse()
        super().release()
        self.queue.reverse()


class LetsTwoIn(Barging):
    async def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Forgiving(homebound.Lock):
    def release(self) -> None:
        if self.locked():
            super().release()


class BoundToALoop(asyncio.Lock):
    """asyncio's own lock, used by more than one loop."""


BROKEN_LOCKS: dict[Any, set[str]] = {
    Barging: {"lets nobody overtake"},
    LosesHandOver: {"survives cancelling"},
    LastInFirstOut: {"serves in order"},
    LetsTwoIn: {"excludes"},
    Forgiving: {"refuses a release too many"},
}


@pytest.mark.parametrize("factory", BROKEN_LOCKS)
def test_broken_lock(factory: Any):
    found = failed_cases(check_lock, factory, one_loop=True)
    assert BROKEN_LOCKS[factory] <= found, found


class LetsThreadsIn(homebound.Lock):
    """Lets a thread in that has waited long enough."""

    def acquire_sync(self, timeout: float | None = None) -> bool:
        super().acquire_sync(timeout)
        return True


class DiesWithItsWaiter(homebound.Lock):
    """Hands over to a waiter whose home has ended."""

    def _withdraw(self, waiter: Any) -> bool:
        if isinstance(waiter.task.home, homebound.AioContext) and waiter.task.home.name != "io":
            return True
        return super()._withdraw(waiter)


def test_broken_between_threads():
    assert failed_cases(check_lock, LetsThreadsIn) == {"lets a thread give up"}
    # Given up soon, and so asked no more than that: a slow lock leaves threads running.
    end = "survives the end of a home"
    others = {case.name for case in lock_cases()} - {end}
    assert failed_cases(check_lock, DiesWithItsWaiter, patience=0.3, skip=others) == {end}


def test_a_lock_for_one_loop_is_detected():
    found = failed_cases(check_lock, BoundToALoop, patience=0.3)
    assert found
    assert found <= {case.name for case in lock_cases()} - {
        case.name for case in lock_cases(one_loop=True)
    }


# Queues with a bug.


class Doubles(asyncio.Queue[Any]):
    """Gives an item again when its getter was cancelled at the last moment."""

    async def get(self) -> Any:
        item = await super().get()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.put_nowait(item)
            self.put_nowait(item)
            raise
        return item


class Loses(asyncio.Queue[Any]):
    """Loses the item of a getter that is cancelled at the last moment."""

    async def get(self) -> Any:
        item = await super().get()
        await asyncio.sleep(0)
        return item


class Boundless(asyncio.Queue[Any]):
    def full(self) -> bool:
        return False


class Heap(asyncio.Queue[Any]):
    """Claims to be a FIFO."""

    def _put(self, item: Any) -> None:
        heapq.heappush(self._queue, item)

    def _init(self, _: int) -> None:
        self._queue: Any = []

    def _get(self) -> Any:
        return heapq.heappop(self._queue)


class NeverDone(asyncio.Queue[Any]):
    def task_done(self) -> None:
        pass


class ShutsDownQuietly(homebound.Queue[Any]):
    """Does not notify the waiters."""

    def shutdown(self, immediate: bool = False) -> None:  # noqa: FBT001, FBT002
        del immediate


BROKEN_QUEUES: dict[Any, set[str]] = {
    Doubles: {"loses no item"},
    Loses: {"loses no item"},
    Boundless: {"keeps its bound", "loses no slot"},
    Heap: {"keeps order"},
    NeverDone: {"counts what is done"},
    ShutsDownQuietly: {"shuts down"},
}


@pytest.mark.parametrize("factory", BROKEN_QUEUES)
def test_broken_queue(factory: Any):
    found = failed_cases(check_queue, factory, one_loop=True)
    assert BROKEN_QUEUES[factory] <= found, found


def test_a_queue_for_one_loop_is_detected():
    found = failed_cases(check_queue, asyncio.Queue, patience=0.3)
    names = {case.name for case in queue_cases()}
    assert found
    assert found <= names - {case.name for case in queue_cases(one_loop=True)}


# The suites themselves.


def test_what_keeps_the_contract_is_not_accused():
    assert failed_cases(check_lock, homebound.Lock) == set()
    assert failed_cases(check_queue, homebound.Queue) == set()
    assert failed_cases(check_executor, partial(homebound.WorkerPool, max_threads=2)) == set()
    assert failed_cases(check_loop, homebound.new_event_loop) == set()


def test_the_error_says_which_case_and_why():
    with pytest.raises(
        AssertionError,
        match=r"check_lock: 'refuses a release too many' fails: .*a free lock was released",
    ):
        check_lock(Forgiving)


def test_cases_are_skipped_by_name():
    check_lock(Forgiving, skip=["refuses a release too many"])
    with pytest.raises(ValueError, match=r"no cases .'refuses everything'"):
        check_lock(homebound.Lock, skip=["refuses everything"])
