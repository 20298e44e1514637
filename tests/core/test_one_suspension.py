"""A wake is for one suspension: what completes one wait leaves nothing behind for the next."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable


class Waits:
    """A kind of wait, and what ends it."""

    wait: Callable[[], Any]
    end: Callable[[], object]

    def __init__(self, name: str) -> None:
        getattr(self, f"_{name}")()

    def _lock(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.wait, self.end = lock.acquire, lock.release

    def _rwlock(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_write_sync()
        self.wait, self.end = lock.acquire_read, lock.release

    def _semaphore(self) -> None:
        semaphore = homebound.Semaphore(0)
        self.wait, self.end = semaphore.acquire, semaphore.release

    def _event(self) -> None:
        event = homebound.Event()
        self.wait, self.end = event.wait, event.set

    def _queue(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()
        self.wait, self.end = queue.get, lambda: queue.put_nowait(1)

    def _barrier(self) -> None:
        barrier = homebound.Barrier(2)
        self.wait, self.end = barrier.wait, barrier.reset_sync

    def _run_in(self) -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.wait = lambda: homebound.run_in(Returns(future), int)
        self.end = lambda: future.set_result(None)

    def _run_in_done_at_once(self) -> None:
        self._run_in()
        self.end()
        self.end = int

    def _worker(self) -> None:
        context = homebound.current_context()
        assert context is not None
        context.workers = pool = homebound.WorkerPool()
        self.wait = lambda: homebound.to_worker(int)
        self.end = lambda: until(lambda: pool._idle)  # its worker has called the waker


class Returns(concurrent.futures.Executor):
    """An executor whose calls all return one future."""

    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self._future = future

    def submit(self, *_call: Any, **_kwargs: Any) -> concurrent.futures.Future[Any]:
        """Return the future."""
        return self._future


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "way",
    [
        "lock",
        "rwlock",
        "semaphore",
        "event",
        "queue",
        "barrier",
        "run_in",
        "run_in_done_at_once",
        "worker",
    ],
)
def test_a_wait_that_was_cancelled_before_leaves_no_wake(way: str, run: Callable[..., Any]):
    """The wait is completed after the task has been cancelled, and before that is raised."""
    woken: list[str] = []

    async def waits(what: Waits) -> list[str]:
        me = homebound.current_task()
        assert me is not None
        me.cancel()
        with pytest.raises(asyncio.CancelledError):
            await what.wait()
        me.uncancel()
        await homebound.suspend()
        return list(woken)

    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        what = Waits(way)
        context = homebound.current_context()
        assert context is not None
        task = context.spawn(waits(what))
        context.call_soon(what.end)
        await settled()
        assert not task.done()
        woken.append("woken")
        task.wake()
        assert await task == ["woken"]

    run(main())


class NotifiesAndFails(homebound.Lock):
    """A condition's lock whose release notifies and then fails."""

    condition: homebound.Condition
    fails = False

    def release(self) -> None:
        """Raise, if told to."""
        if self.fails:
            self.condition._notify(1)
            raise RuntimeError("no release")
        super().release()


def test_a_wait_that_failed_before_its_suspension_leaves_no_wake():
    woken: list[str] = []
    lock = NotifiesAndFails()
    condition = lock.condition = homebound.Condition(lock)

    async def waits() -> list[str]:
        async with condition:
            lock.fails = True
            with pytest.raises(RuntimeError, match="no release"):
                await condition._wait(joined=condition.release)
            lock.fails = False
        await homebound.suspend()
        return list(woken)

    async def main() -> None:
        task = asyncio.create_task(waits())
        await settled()
        assert not task.done()
        woken.append("woken")
        assert isinstance(task, homebound.Task)
        task.wake()
        assert await task == ["woken"]

    homebound.run(main())


def test_an_early_wake_outlasts_a_wait_that_failed():
    """Another thread wakes the running task: that holds for its next suspension."""
    lock = NotifiesAndFails()
    condition = lock.condition = homebound.Condition(lock)

    async def waits() -> str:
        me = homebound.current_task()
        assert me is not None
        async with condition:
            await asyncio.to_thread(int)
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                thread.submit(me.wake).result(10)
            lock.fails = True
            with pytest.raises(RuntimeError, match="no release"):
                await condition._wait(joined=condition.release)
            lock.fails = False
        await homebound.suspend()
        return "woken"

    assert homebound.run(waits()) == "woken"


def test_a_waker_of_an_abandoned_cell_wakes_the_next_suspension():
    """The waker read the cell before the wait failed, and appends to it after."""

    async def main() -> str:
        me = homebound.current_task()
        assert me is not None
        cell = me._cell
        me._renew_cell(cell)
        assert me.home is not None
        me._wake_in(cell, me.home)
        with pytest.raises(homebound.AlreadyScheduled):
            me._claim_in(cell, me.home)
        await homebound.suspend()
        return "woken"

    assert homebound.run(main()) == "woken"


def test_a_withdrawn_cancellation_does_not_wake():
    """As with asyncio's future: the wait was cancelled, and ends with that."""

    async def waits() -> str:
        try:
            await homebound.suspend()
        except asyncio.CancelledError:
            return "cancelled"
        return "woken"

    async def main() -> str:
        task = asyncio.create_task(waits())
        await settled()
        task.cancel()
        assert task.uncancel() == 0
        return await task

    assert homebound.run(main()) == "cancelled"


def test_a_job_has_one_waker_at_most():
    """Other threads wake its task repeatedly: each wake arms the next suspension."""
    go_on = concurrent.futures.Future[str]()

    async def main() -> str:
        context = homebound.current_context()
        assert context is not None
        task = context.spawn(homebound.to_worker(go_on.result, 10))
        await settled()
        for _ in range(3):
            task.wake()
            await settled()
            assert len(task._wait.wakers) == 1
        go_on.set_result("done")
        result: str = await task
        return result

    assert homebound.run(main()) == "done"
