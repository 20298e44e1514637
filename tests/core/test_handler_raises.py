"""An exception of a signal handler in a synchronous wait, such as Celery's soft time limit.

As with Ctrl-C, what was waited for is cancelled and cleaned up, and nothing is left in a queue.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._sync.waiters import parked
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="this system sends no signals to threads"
)


class Limit(Exception):  # noqa: N818  (a limit, as Celery's)
    """What the handler raises."""


@pytest.fixture
def limit() -> Iterator[Callable[[Callable[[], object]], None]]:
    """`limit(asleep)` sends the main thread the signal once `asleep()`."""
    threads: list[threading.Thread] = []

    def limited(*_: object) -> None:
        raise Limit

    def send(asleep: Callable[[], object]) -> None:
        until(asleep)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def start(asleep: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=send, args=[asleep]))
        threads[-1].start()

    before = signal.signal(signal.SIGUSR1, limited)
    yield start
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGUSR1, before)


class Wait:
    """A wait that nothing ends, `call`; and that nothing of it is left, `gone`."""

    call: Callable[[], object]
    gone: Callable[[], object]

    def __init__(self, kind: str) -> None:
        getattr(self, kind)()

    def block_on(self) -> None:
        done: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.001)
                done.append("cleaned up")

        self.call = lambda: homebound.block_on(work())
        self.gone = lambda: done == ["cleaned up"]

    def task(self) -> None:
        async def work() -> None:
            await asyncio.sleep(3600)

        def call() -> None:
            task = homebound.main_context().spawn(work())  # type: ignore[union-attr]
            self.gone = task.cancelled
            homebound.block_on(task, timeout=3600)

        self.call = call

    def lock(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.call, self.gone = lock.acquire_sync, lambda: not lock._waiters and lock.locked()

    def lock_with_a_timeout(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.call = lambda: lock.acquire_sync(3600)
        self.gone = lambda: not lock._waiters and lock.locked()

    def semaphore(self) -> None:
        semaphore = homebound.Semaphore(0)
        self.call = semaphore.__enter__
        self.gone = lambda: not semaphore._waiters and semaphore.locked()

    def rwlock(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_read_sync()
        self.call = lock.acquire_write_sync
        self.gone = lambda: not lock._waiters and lock.locked()

    def event(self) -> None:
        event = homebound.Event()
        self.call, self.gone = event.wait_sync, lambda: not event._waiters

    def barrier(self) -> None:
        barrier = homebound.Barrier(2)
        self.call, self.gone = barrier.wait_sync, lambda: barrier.n_waiting == 0

    def condition(self) -> None:
        condition = homebound.Condition()
        condition.acquire_sync()
        self.call = condition.wait_sync
        self.gone = lambda: not condition._waiters and condition.locked()

    def get(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()
        self.call, self.gone = queue.get_sync, lambda: not queue._getters

    def put(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(1)
        queue.put_nowait(0)
        self.call = lambda: queue.put_sync(1)
        self.gone = lambda: not queue._putters and queue.qsize() == 1


KINDS = [name for name in vars(Wait) if name[0] != "_"]


@pytest.mark.parametrize("place", ["task", "callback"])
@pytest.mark.parametrize("kind", KINDS)
def test_at_home(kind: str, place: str, limit: Any) -> None:
    async def main() -> None:
        wait = Wait(kind)
        done = asyncio.get_running_loop().create_future()

        def callback() -> None:
            limit(lambda: context._stand_in.sleeps_until is not None)
            try:
                wait.call()
            except Limit:
                done.set_result(wait.gone())

        context: Any = homebound.current_context()
        if place == "task":
            callback()
        else:
            asyncio.get_running_loop().call_soon(callback)
        assert await done
        assert len(asyncio.all_tasks()) == 1

    homebound.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_stand_in(kind: str, limit: Any, in_thread: Callable[..., Future[Any]]) -> None:
    """The main loop runs in another thread, and this one holds the big lock."""
    until_asleep: list[Any] = []

    async def main() -> None:
        ended = asyncio.Event()
        until_asleep.append((homebound.current_context(), ended, asyncio.get_running_loop()))
        await ended.wait()

    running = in_thread(homebound.run, main())
    until(lambda: until_asleep)
    context, ended, loop = until_asleep[0]
    until(lambda: context._stand_in.sleeps_until is not None)
    with homebound.big_lock:
        wait = Wait(kind)
        limit(lambda: context._watchers)
        with pytest.raises(Limit):
            wait.call()
        assert wait.gone()
        assert homebound.big_lock.held()
    loop.call_soon_threadsafe(ended.set)
    running.result(20)


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in {"block_on", "task"}])
def test_in_a_thread(kind: str, limit: Any) -> None:
    wait = Wait(kind)
    limit(lambda: parked.get(threading.main_thread().ident or 0))
    with pytest.raises(Limit):
        wait.call()
    assert wait.gone()


@pytest.mark.usefixtures("limit")
def test_as_a_condition_reacquires_its_lock(in_thread: Callable[..., Future[Any]]) -> None:
    """The wait ends holding the lock, whatever is raised meanwhile."""
    condition = homebound.Condition()

    def notify() -> None:
        with condition:
            condition.notify()
            until(lambda: condition._lock._waiters)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    with condition:
        notifying = in_thread(notify)
        with pytest.raises(Limit):
            condition.wait_sync()
        notifying.result(20)
        assert condition.locked()
    assert not condition.locked()
