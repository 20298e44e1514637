"""A finaliser, or a signal handler, gives or sets what is in the middle of being given or set."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import until

from .attack import STRIDE
from .interruptions import (
    Interruption,
    collector,
    in_collection,
    in_finaliser,
    in_weak_callback,
    no_more_threads,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


class Scene:
    """`use` is interrupted by `report`; what is then to happen, `outcomes` come to."""

    use: Callable[[], object]
    report: Callable[[], object]
    end: Callable[..., object] = int  # give up what it needed

    def __init__(self, kind: str, io: homebound.IOThread) -> None:
        self.io = io
        self.outcomes: list[Any] = []
        getattr(self, f"_{kind}")()

    def _twice(self, act: Callable[[], object], wait: Callable[[], Any]) -> None:
        self.use = self.report = act
        self._wait(wait, 2)

    def _wait(self, wait: Callable[[], Any], count: int) -> None:
        self.outcomes = [self.io.spawn(wait()) for _ in range(count)]
        homebound.block_on(nothing(), self.io.context)  # they queue

    def _queue(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()
        self._twice(lambda: queue.put_nowait(1), queue.get)

    def _priority_queue(self) -> None:
        queue: homebound.PriorityQueue[int] = homebound.PriorityQueue()
        self._twice(lambda: queue.put_nowait(1), queue.get)

    def _bounded_queue(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(2)
        self._twice(lambda: queue.put_nowait(1), queue.get)

    def _full_queue(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(2)
        queue.put_nowait(1)
        queue.put_nowait(1)
        self._twice(queue.get_nowait, lambda: queue.put(1))

    def _event(self) -> None:
        event = homebound.Event()
        self._twice(event.set, event.wait)

    def _semaphore(self) -> None:
        semaphore = homebound.Semaphore(0)
        self._twice(semaphore.release, semaphore.acquire)

    def _bounded_semaphore(self) -> None:
        semaphore = homebound.BoundedSemaphore(2)
        semaphore.acquire_sync()
        semaphore.acquire_sync()
        self._twice(semaphore.release, semaphore.acquire)

    def _lock(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self._twice(lock.release, lock.acquire)

    def _rwlock(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_read_sync()
        lock.acquire_read_sync()
        self.use = self.report = lock.release
        self._wait(lock.acquire_write, 1)

    def _condition(self) -> None:
        condition = homebound.Condition()

        async def wait() -> None:
            async with condition:
                await condition.wait()

        self._wait(wait, 2)
        condition.acquire_sync()

        def use() -> None:
            condition.notify()
            condition.release()

        self.use, self.report = use, lambda: condition._notify(1)

    def _barrier(self) -> None:
        barrier = homebound.Barrier(3)

        async def wait() -> None:
            with pytest.raises(asyncio.BrokenBarrierError):
                await barrier.wait()

        self._twice(barrier.abort_sync, wait)

    def _pool(self) -> None:
        pool = homebound.WorkerPool(max_threads=2)

        def submit() -> None:
            self.outcomes.append(homebound.run_in(Given(pool.submit(int)), int))

        self.use = self.report = submit
        self.end = pool.shutdown

    def _job_in_a_new_pool(self) -> None:
        """The finaliser waits for a job of the pool whose first thread is about to start."""
        self._waits_for_a_job(homebound.WorkerPool(max_threads=1))

    def _job_in_an_idle_pool(self) -> None:
        """The finaliser waits for a job of the pool whose only thread is about to be woken."""
        pool = homebound.WorkerPool(max_threads=1)
        assert pool.submit(int).result(10) == 0
        until(lambda: pool._idle)
        self._waits_for_a_job(pool)

    def _end_of_a_new_pool(self) -> None:
        """The finaliser ends the pool whose first thread is about to start, and waits for that."""
        pool = homebound.WorkerPool(max_threads=1)

        def use() -> None:
            with suppress(RuntimeError):  # it was shut down before that
                self.outcomes.append(homebound.run_in(Given(pool.submit(int)), int))

        self.use = use
        self.report = self.end = pool.shutdown

    def _waits_for_a_job(self, pool: homebound.WorkerPool) -> None:
        alone = threading.Lock()

        def job() -> None:
            assert alone.acquire(blocking=False), "two jobs at once in a pool of one thread"
            alone.release()

        def use() -> None:
            self.outcomes.append(homebound.run_in(Given(pool.submit(job)), int))

        self.use = use
        self.report = lambda: pool.submit(job).result(10)
        self.end = pool.shutdown


class Given(homebound.WorkerPool):
    """An executor that comes to a future that there is."""

    def __init__(self, future: Any) -> None:
        super().__init__()
        self._future = future

    def submit(self, *_call: Any, **_kwargs: Any) -> Any:
        """The future."""
        return self._future


async def nothing() -> None:
    """Come after what was queued before."""


KINDS = [name[1:] for name in vars(Scene) if name[0] == "_" and name[1] not in "_tw"]
OF_POOLS = {"pool", "job_in_a_new_pool", "job_in_an_idle_pool", "end_of_a_new_pool"}


def without_threads(act: Callable[[], object]) -> None:
    """Call `act` at the limit of threads."""
    with no_more_threads():
        act()


@pytest.mark.parametrize("limit", [False, True], ids=["", "at the limit of threads"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_nothing_hangs(kind: str, *, limit: bool):
    if limit and kind in OF_POOLS:
        pytest.skip("its submitter gets an error: tests/core/test_worker_death.py")
    interrupt_each(kind, without_threads if limit else None)


@pytest.mark.parametrize("way", [in_finaliser, in_weak_callback, in_collection])
@pytest.mark.parametrize("kind", KINDS)
def test_the_garbage_collector(kind: str, way: Callable[..., object]):
    """It runs in the middle, and what it calls acts on the same object."""
    with collector():
        interrupt_each(kind, way)


def interrupt_each(kind: str, way: Callable[..., object] | None) -> None:
    """Interrupt at the places in turn (see STRIDE): `way` calls what comes in between."""
    at = 0
    with homebound.IOThread() as io:
        while True:
            scene = Scene(kind, io)
            report = partial(way, scene.report) if way else scene.report
            interruption = Interruption(at, report)
            interruption.run(scene.use)
            if way is in_collection:
                gc.set_threshold(0)
                gc.collect()  # if it has not run
            if not interruption.happened:
                scene.report()
            try:
                for each in scene.outcomes:
                    homebound.block_on(each, io.context, timeout=10)
            except TimeoutError:
                raise AssertionError(interruption.where) from None
            scene.end()
            if not interruption.happened:
                break
            at += STRIDE
    assert at > 2


def deep(depth: int, act: Callable[[], object]) -> object:
    """Call `act` that many frames further down."""
    return act() if not depth else deep(depth - 1, act)


@pytest.mark.parametrize("kind", ["queue", "semaphore", "lock"])
def test_a_recursion_error_in_the_middle_loses_no_waiter(
    kind: str,
):
    """At each depth: what has raised can be done again, or has been done."""
    limit = sys.getrecursionlimit()
    raised = 0
    with homebound.IOThread() as io:
        for depth in range(limit - 120, limit):
            scene = Scene(kind, io)
            try:
                deep(depth, scene.use)
            except RecursionError:
                raised += 1
            for _ in range(2):
                with suppress(RuntimeError):  # it was released
                    scene.report()
            for each in scene.outcomes:
                homebound.block_on(each, io.context, timeout=10)
    assert raised > 5


def test_a_wait_without_end_in_a_finaliser_is_refused():
    """It has interrupted an operation on the same lock, which goes on only after it."""
    lock = homebound.Lock()
    lock.acquire_sync()
    with lock._guard:  # where the collector may run
        with pytest.raises(homebound.WouldDeadlock, match="in a finaliser"):
            lock.acquire_sync()
        assert not lock.acquire_sync(timeout=0)
    lock.release()
    assert lock.acquire_sync(timeout=0)


def test_a_refused_wait_at_either_end_of_a_queue_names_the_queue():
    queue = homebound.Queue[int](1, name="jobs")
    for end, wait in (
        (queue._getters_queue, queue.get_sync),
        (queue._slots, lambda: queue.put_sync(2)),
        (queue._unfinished, queue.join_sync),
    ):
        assert end is not None
        with end._guard, pytest.raises(homebound.WouldDeadlock, match="Queue 'jobs'"):
            wait()
        if queue.empty():
            queue.put_nowait(1)
    assert queue.get_nowait() == 1


# At the limit of threads.


class Loses:
    """A lock that is released in a finaliser, under its guard, at the limit of threads."""

    def __init__(self) -> None:
        self.lock = homebound.Lock()
        self.lock.acquire_sync()

    def release(self) -> None:
        """Be the finaliser."""
        with self.lock._guard, no_more_threads():
            self.lock.release()


def test_a_thread_that_waits_gets_what_a_finaliser_gives(in_thread: InThread):
    loses = Loses()
    waiting = in_thread(loses.lock.acquire_sync)
    until(lambda: "waiters:1" in repr(loses.lock))
    loses.release()
    assert waiting.result(20)


def test_a_task_of_asyncio_gets_what_a_finaliser_gives():
    async def main() -> bool:
        loses = Loses()
        task = asyncio.create_task(loses.lock.acquire())
        await asyncio.sleep(0)
        loses.release()
        return await task

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("comes", ["thread", "task", "task of asyncio"])
def test_what_a_leaving_waiter_gives_back_is_there_for_the_next(comes: str):
    """A task that was granted the lock is collected; no other waits yet."""
    lock = Loses().lock
    loop = asyncio.SelectorEventLoop()
    task = loop.create_task(lock.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    lock.release()  # handed over to the task
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro: Any = task.get_coro()
    with lock._guard, no_more_threads():
        coro.close()
    assert lock.locked()
    if comes == "thread":
        assert lock.acquire_sync(timeout=20)
    elif comes == "task":
        homebound.run(asyncio.wait_for(lock.acquire(), 20))
    else:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(asyncio.wait_for(lock.acquire(), 20))
    loop.close()


def test_a_loop_makes_the_call_though_no_waiter_comes():
    async def main() -> None:
        semaphore = homebound.Semaphore(0)
        waiting = asyncio.create_task(semaphore.acquire())
        await asyncio.sleep(0)
        with semaphore._guard, no_more_threads():
            semaphore.release()
        await waiting
        assert semaphore.locked()

    homebound.run(asyncio.wait_for(main(), 20))


class _Puts(int):
    """An item that puts another as it is compared, like a finaliser that comes in there."""

    act: Callable[[], object] | None = None

    def __lt__(self, other: int) -> bool:
        act, self.act = self.act, None
        if act is not None:
            act()
        return int(self) < other


def test_a_finaliser_comes_as_what_another_has_put_goes_in():
    at, happened = 0, True
    while happened:
        queue: homebound.PriorityQueue[int] = homebound.PriorityQueue()
        queue.put_nowait(5)
        item = _Puts(1)
        item.act = partial(queue.put_nowait, 2)
        interruption = Interruption(at, partial(queue.put_nowait, 3))
        interruption.run(partial(queue.put_nowait, item))
        happened = interruption.happened
        expected = [1, 2, 3, 5] if happened else [1, 2, 5]
        assert [queue.get_nowait() for _ in expected] == expected, interruption.where
        assert queue.empty()
        at += 1
    assert at > 5
