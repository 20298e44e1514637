"""An exception at any point of a hand-over: nothing has happened, or all of it has."""

from __future__ import annotations

import _thread
import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._os.snapshot import snapshot
from homebound.testing import until

from .attack import PATIENCE, STRIDE, Attack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def nothing() -> None:
    """Come after what was queued before."""


def drive(coro: Coroutine[Any, Any, Any]) -> Any:
    """What it returns without having to wait."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Scene:
    """An operation: `act` is attacked, and `state` is what it changes.

    An attacked one is as before or as afterwards. `finish` does the rest, by ordinary operations,
    until each of the `waiters` has what it waits for.
    """

    act: Callable[[], object]
    state: Callable[[], tuple[Any, ...]]
    again: Callable[[], object]
    # Whether what `act` would have returned is still there, if it is lost when that raises.
    kept: Callable[[], bool] | None = None
    end: Callable[[], object] = int  # after `finish`: that all adds up

    def surely(self, attack: Attack) -> bool:  # noqa: ARG002  (a subclass looks where it raised)
        """Whether all of it must have happened, although it raised."""
        return False

    def __init__(self, kind: str, io: homebound.IOThread) -> None:
        self.io = io
        self.waiters: list[Any] = []
        getattr(self, f"_{kind}")()
        self.settle()

    def wait(self, *coros: Coroutine[Any, Any, Any]) -> None:
        for coro in coros:
            self.waiters.append(self.io.spawn(coro))
            self.settle()

    def settle(self) -> None:
        """What is on its way, in a repair's thread as well, has arrived."""
        until(lambda: _thread._count() <= self.threads)
        # Without our ringing for it. A cancelled one may lie there until the next ring.
        until(lambda: all(each._cancelled for each in snapshot(self.io.context._ready)))
        for _ in range(3):
            homebound.block_on(nothing(), self.io.context, timeout=PATIENCE)

    threads = 0

    def seen(self) -> tuple[Any, ...]:
        return (sum(each.done() for each in self.waiters), *self.state())

    def finish(self) -> None:
        for _ in range(len(self.waiters) + 1):
            if all(each.done() for each in self.waiters):
                break
            self.again()
            self.settle()
        for each in self.waiters:
            homebound.block_on(each, self.io.context, timeout=PATIENCE)
        self.end()

    # The operations.

    def _lock_release(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.wait(lock.acquire(), lock.acquire())
        self.act = self.again = lock.release
        self.state = lambda: (lock.locked(), len(lock._waiters))

    def _lock_release_with_none_waiting(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.act = lock.release
        self.state = lambda: (lock.locked(), len(lock._waiters))

    def _semaphore_release(self) -> None:
        semaphore = homebound.Semaphore(0)
        self.wait(semaphore.acquire(), semaphore.acquire())
        self.act = self.again = semaphore.release
        self.state = lambda: (semaphore._value, len(semaphore._waiters))

    def _bounded_semaphore_release(self) -> None:
        semaphore = homebound.BoundedSemaphore(2)
        semaphore.acquire_sync()
        semaphore.acquire_sync()
        self.wait(semaphore.acquire(), semaphore.acquire())
        self.act = self.again = semaphore.release
        self.state = lambda: (semaphore._value, len(semaphore._waiters))

    def _rwlock_release(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_write_sync()
        self.wait(lock.acquire_read(), lock.acquire_read(), lock.acquire_write())
        self.act = self.again = lock.release
        self.state = lambda: (lock._owners, len(lock._waiters))

    def _rwlock_downgrade(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_write_sync()
        self.wait(lock.acquire_read(), lock.acquire_read())
        self.act = self.again = lock.downgrade
        self.state = lambda: (lock._owners, len(lock._waiters))

    def _event_set(self) -> None:
        event = homebound.Event()
        self.wait(event.wait(), event.wait())
        self.act = self.again = event.set
        self.state = lambda: (event.is_set(), len(event._waiters))

    def _condition_notify(self) -> None:
        condition = homebound.Condition()

        async def wait() -> None:
            async with condition:
                await condition.wait()

        self.wait(wait(), wait(), wait())
        condition.acquire_sync()
        self.act = lambda: condition.notify(2)
        self.state = lambda: (condition.locked(), len(condition._waiters))

        def again() -> None:
            if condition.locked():
                condition.notify_all()
                condition.release()

        self.again = again

    def _barrier_abort(self) -> None:
        barrier = homebound.Barrier(3)
        self.wait(broken(barrier), broken(barrier))
        self.act = self.again = barrier.abort_sync
        self.state = lambda: (barrier._state, barrier._count, len(barrier._waiters))

    def _barrier_reset(self) -> None:
        barrier = homebound.Barrier(3)
        self.wait(broken(barrier), broken(barrier))
        self.act = self.again = barrier.reset_sync
        self.state = lambda: (barrier._state, barrier._count, len(barrier._waiters))

    def _queue_put_nowait(self) -> None:
        self._put(homebound.Queue(), "put_nowait")

    def _queue_put_sync(self) -> None:
        self._put(homebound.Queue(3), "put_sync")

    def _queue_put(self) -> None:
        self._put(homebound.Queue(), "put")

    def _bounded_queue_put(self) -> None:
        self._put(homebound.Queue(3), "put")

    def _bounded_queue_put_nowait(self) -> None:
        self._put(homebound.Queue(3), "put_nowait")

    def _priority_queue_put_nowait(self) -> None:
        self._put(homebound.PriorityQueue(3), "put_nowait")

    def _put(self, queue: homebound.Queue[int], how: str) -> None:
        self.wait(queue.get(), queue.get())
        put = getattr(queue, how)
        self.act = (lambda: drive(put(1))) if how == "put" else lambda: put(1)
        self.again = lambda: queue.put_nowait(2)
        self.state = lambda: ledger(queue)

    def _queue_get_nowait(self) -> None:
        self._get(homebound.Queue(), "get_nowait")

    def _queue_get(self) -> None:
        self._get(homebound.Queue(), "get")

    def _full_queue_get_nowait(self) -> None:
        self._get(homebound.Queue(2), "get_nowait")

    def _full_queue_get_sync(self) -> None:
        self._get(homebound.Queue(2), "get_sync")

    def _full_queue_get(self) -> None:
        self._get(homebound.Queue(2), "get")

    def _full_priority_queue_get(self) -> None:
        self._get(homebound.PriorityQueue(2), "get_nowait")

    def _get(self, queue: homebound.Queue[int], how: str) -> None:
        queue.put_nowait(1)
        queue.put_nowait(2)
        if queue.maxsize:
            self.wait(queue.put(3), queue.put(4))
        get = getattr(queue, how)
        self.act = (lambda: drive(get())) if how == "get" else get
        self.again = queue.get_nowait
        self.state = lambda: ledger(queue)
        # A putter may have come in meanwhile: one item more than it takes, until one is got.
        self.kept = lambda: {1, 2} <= set(queue._queue)

        def end() -> None:
            while not queue.empty():
                queue.get_nowait()
                self.settle()
            assert queue._slots is None or queue._slots._value == queue.maxsize
            assert not queue._putters

        self.end = end

    def _queue_task_done(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()
        queue.put_nowait(1)
        queue.get_nowait()
        self.wait(queue.join(), queue.join())
        self.act = self.again = queue.task_done
        self.state = lambda: ledger(queue)

    def _queue_shutdown(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()

        async def told() -> None:
            with pytest.raises(homebound.QueueShutDown):
                await queue.get()

        self.wait(told(), told())
        self.act = self.again = queue.shutdown
        self.state = lambda: ledger(queue)

    # Posts to a home that sleeps.

    def _post(self, act: Callable[[], object]) -> None:
        self.act = self.again = act
        self.runs = 0
        self.state = lambda: (self.runs,)
        context: Any = self.io.context
        until(lambda: context._bell)

    def _ran(self) -> None:
        self.runs += 1

    async def _sleeper(self) -> None:
        await homebound.suspend()
        self.runs += 1

    def _call_soon(self) -> None:
        self._post(lambda: self.io.context.call_soon(self._ran))

    def _call_soon_threadsafe(self) -> None:
        self._post(lambda: self.io.context.loop.call_soon_threadsafe(self._ran))

    def _bottom_half_schedule(self) -> None:
        self._post(self.io.context.bottom_half(self._ran).schedule)

    def _task_wake(self) -> None:
        self.wait(self._sleeper())
        self._post(self.waiters[0].wake)

    def _context_schedule(self) -> None:
        self.wait(self._sleeper())
        self._post(lambda: self.io.context.schedule(self.waiters[0]))


HELPERS = ("_put", "_get", "_post", "_ran", "_sleeper")


async def broken(barrier: homebound.Barrier) -> None:
    with pytest.raises(asyncio.BrokenBarrierError):
        await barrier.wait()


def ledger(queue: homebound.Queue[int]) -> tuple[Any, ...]:
    slots = None if queue._slots is None else queue._slots._value
    waiting = len(queue._getters), len(queue._putters), len(queue._unfinished._waiters)
    return (list(queue._queue), slots, queue._unfinished_tasks, queue._is_shutdown, *waiting)


KINDS = [
    name[1:] for name in vars(Scene) if name[0] == "_" and name[1] != "_" and name not in HELPERS
]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_or_all_of_it(kind: str):
    points = attack_all(Scene, kind)
    assert points > 0 or kind in {"queue_get", "queue_get_nowait"}  # where nothing can raise


def attack_all(scenes: type[Scene], kind: str) -> int:
    """Attack an operation at its points (see STRIDE); return about how many there are."""
    io = homebound.IOThread()
    io.start()
    scenes.threads = _thread._count()
    plain = scenes(kind, io)
    before = plain.seen()
    plain.finish()
    plain = scenes(kind, io)
    Attack(sys.maxsize).run(plain.act)
    plain.settle()
    after = plain.seen()
    plain.finish()
    points = attack_each(scenes, kind, io, before, after)
    io.stop()
    return points


def attack_each(scenes: type[Scene], kind: str, io: Any, before: Any, after: Any) -> int:
    at = 0
    while True:
        scene = scenes(kind, io)
        assert scene.seen() == before
        attack = Attack(at)
        raised = attack.run(scene.act)
        scene.settle()
        seen = scene.seen()
        if scene.kept is None:
            may_be = [before, after] if raised and not scene.surely(attack) else [after]
            assert seen in may_be, (attack.where, raised, before, after)
        else:
            assert seen == after if not raised else scene.kept(), (attack.where, seen)
        try:
            scene.finish()
        except TimeoutError:
            raise AssertionError((attack.where, scene.seen(), scene.waiters)) from None
        if attack.left >= 0:
            return at
        at += STRIDE
