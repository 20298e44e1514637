"""The synchronous methods: a home keeps turning, a plain thread sleeps."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._core.cell import Waker
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


def test_a_home_that_waits_keeps_turning():
    lock = homebound.Lock()

    async def main() -> list[str]:
        told = ["began"]

        async def other() -> None:
            told.append("other task ran")
            lock.release()

        await lock.acquire()
        other_task = asyncio.create_task(other())
        assert lock.acquire_sync()
        told.append("acquired")
        await other_task
        return told

    assert homebound.run(main()) == ["began", "other task ran", "acquired"]
    assert lock.locked()


def test_a_holder_of_the_big_lock_turns_the_main_loop():
    event = homebound.Event()

    async def main() -> bool:
        loop = asyncio.get_running_loop()

        def worker() -> bool:
            with homebound.big_lock:
                loop.call_soon(event.set)  # runs in this thread, or in the main one
                return event.wait_sync(timeout=10)

        return await homebound.to_worker(worker)

    assert homebound.run(main()) is True


@pytest.mark.parametrize("place", ["thread", "home"])
def test_the_big_lock_is_free_while_its_holder_waits(
    place: str, in_thread: Callable[..., Future[Any]], io: homebound.IOThread
):
    """Without a main loop, or at home elsewhere, a holder does not stand in: it just sleeps."""
    event = homebound.Event()

    def wait() -> bool:
        with homebound.big_lock:
            return event.wait_sync() and homebound.big_lock.held()

    async def wait_at_home() -> bool:
        return wait()

    done = (
        in_thread(wait)
        if place == "thread"
        else in_thread(homebound.block_on, io.spawn(wait_at_home()))
    )
    until(lambda: event._waiters)
    free = homebound.big_lock.acquire(timeout=10)
    event.set()
    assert free
    homebound.big_lock.release()
    assert done.result(20)


@pytest.mark.parametrize("at_home", [True, False])
def test_timeouts(at_home: bool):  # noqa: FBT001
    lock, rw, event = homebound.Lock(), homebound.RWLock(), homebound.Event()
    semaphore, barrier = homebound.Semaphore(0), homebound.Barrier(2)
    condition, queue = homebound.Condition(), homebound.Queue[int](1)

    def check() -> None:
        lock.acquire_sync()
        assert lock.acquire_sync(timeout=0.001) is False
        rw.acquire_read_sync()
        assert rw.acquire_write_sync(timeout=0.001) is False
        assert rw.acquire_read_sync() is True
        with pytest.raises(TimeoutError):
            rw.upgrade_sync(timeout=0.001)
        assert rw._owners == 2
        assert event.wait_sync(timeout=0.001) is False
        assert semaphore.acquire_sync(timeout=0.001) is False
        with pytest.raises(TimeoutError):
            barrier.wait_sync(timeout=0.001)
        assert barrier.n_waiting == 0
        with condition:
            assert condition.wait_sync(timeout=0.001) is False
            assert not condition.wait_for_sync(lambda: False, timeout=0.001)
            assert condition.locked()
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_sync(timeout=0.001)
        queue.put_sync(1)
        with pytest.raises(asyncio.QueueFull):
            queue.put_sync(2, timeout=0.001)
        assert queue.join_sync(timeout=0.001) is False
        assert queue.get_sync() == 1
        queue.task_done()
        assert queue.join_sync() is True

    async def main() -> None:
        check()

    homebound.run(main()) if at_home else check()


def test_a_loop_of_others_cannot_be_turned():
    lock = homebound.Lock()
    lock.acquire_sync()

    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        with pytest.raises(homebound.ContextError, match="await instead"):
            lock.acquire_sync()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert not lock._waiters


def test_a_loop_of_others_takes_what_there_is():
    """In its thread, only what would have to wait is refused."""
    lock, semaphore, event = homebound.Lock(), homebound.Semaphore(1), homebound.Event()
    rw, queue, barrier = homebound.RWLock(), homebound.Queue[int](1), homebound.Barrier(2)

    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        assert lock.acquire_sync()
        assert not lock.acquire_sync(timeout=0)
        assert semaphore.acquire_sync()
        assert not semaphore.acquire_sync(timeout=0)
        assert not event.wait_sync(0)
        assert rw.acquire_read_sync()
        assert not rw.acquire_write_sync(timeout=0)
        queue.put_sync(1)
        with pytest.raises(asyncio.QueueFull):
            queue.put_sync(2, timeout=0)
        assert queue.get_sync() == 1
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_sync(timeout=0)
        assert not queue.join_sync(timeout=0)
        assert homebound.Barrier(1).wait_sync() == 0
        with pytest.raises(TimeoutError):
            barrier.wait_sync(timeout=0)
        with pytest.raises(homebound.ContextError):
            queue.get_sync(timeout=1)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert barrier.n_waiting == 0
    queue.put_nowait(2)
    assert queue.get_nowait() == 2  # no waiter that has gone takes it


def test_a_wait_that_is_collected_leaves():
    """Its coroutine is closed, as when a loop forgets it."""
    lock = homebound.Lock()
    lock.acquire_sync()

    async def main() -> None:
        waiting: Any = lock._wait()
        waiting.send(None)
        assert len(lock._waiters) == 1
        waiting.close()
        assert not lock._waiters

    homebound.run(main())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


def test_a_condition_wait_that_is_collected_does_not_release_what_it_has_not():
    condition = homebound.Condition()

    async def body() -> None:
        async with condition:
            await condition.wait()

    async def main() -> None:
        waiting: Any = body()
        waiting.send(None)
        assert not condition.locked()
        await condition.acquire()
        waiting.close()
        assert condition.locked()
        assert not condition._waiters
        condition.release()

    homebound.run(main())


def test_a_finaliser_under_the_guard_leaves_by_another_thread():
    lock = homebound.Lock()
    lock.acquire_sync()

    async def main() -> None:
        waiting: Any = lock._wait()
        waiting.send(None)
        with lock._guard:
            waiting.close()  # as if it were collected here; it must not wait for the guard
        while lock._waiters:
            await asyncio.sleep(0)

    homebound.run(main())


def test_a_promise_that_its_home_does_not_live_to_see():
    """A thread promised to enter a task, and finds its home ended: it tells the waiters."""
    loop = homebound.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def sleeper() -> None:
        await homebound.suspend()

    class EndsMeanwhile(list[Any]):
        """The cell of the suspension: the home ends when the first promise stands in it."""

        def append(self, token: Any) -> None:
            super().append(token)
            if len(self) == 2:
                loop.call_soon_threadsafe(loop.stop)
                thread.join(10)
                loop.close()
                ended.append(task.done())

    task: Any = homebound.block_on(begun(sleeper()), loop.home)  # type: ignore[attr-defined]
    ended: list[bool] = []
    task._cell = EndsMeanwhile(task._cell)
    assert Waker(task).wake() is False
    assert ended == [False]  # the closer has left it to the thread that promised
    with pytest.raises(homebound.ContextClosed):
        task.result()


async def begun(coro: Any) -> Any:
    task = asyncio.create_task(coro)
    await asyncio.sleep(0)
    return task


def test_reserves():
    """A semaphore of many permits, a queue of many slots and of much unfinished work."""
    semaphore = homebound.BoundedSemaphore(5000)
    assert all(semaphore.acquire_sync(timeout=0) for _ in range(5000))
    assert not semaphore.acquire_sync(timeout=0)
    for _ in range(5000):
        semaphore.release()
    with pytest.raises(ValueError, match="too many"):
        semaphore.release()
    queue: homebound.Queue[int] = homebound.Queue(5000)
    for number in range(5000):
        queue.put_nowait(number)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(0)
    assert queue._unfinished_tasks == 5000
    for number in range(5000):
        assert queue.get_nowait() == number
        queue.task_done()
    assert queue.join_sync()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


def test_a_subclass_with_its_own_order():
    class Unique(homebound.Queue[int]):
        def _init(self, _maxsize: int) -> None:
            self._queue = set()

        def _put(self, item: int) -> None:
            self._queue.add(item)

        def _get(self) -> Any:
            return self._queue.pop()

    queue = Unique()
    queue.put_nowait(1)
    queue.put_nowait(1)
    assert queue.qsize() == 1
    assert queue.get_nowait() == 1
    assert queue.empty()


@pytest.mark.parametrize(
    "make",
    [
        homebound.Lock,
        homebound.RWLock,
        homebound.Semaphore,
        homebound.Event,
        homebound.Condition,
        lambda: homebound.Barrier(2),
        homebound.Queue,
        homebound.PriorityQueue,
    ],
)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_none_is_copied(make: Callable[[], Any], how: Callable[[Any], Any]):
    """A copy would share the waiters and not the state."""
    each = make()
    with pytest.raises(TypeError, match=f"cannot copy or pickle '{type(each).__name__}' object"):
        how(each)
