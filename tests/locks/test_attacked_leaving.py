"""An exception at any point of acquiring, waiting and leaving: nothing that was granted is lost."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import QueueShutDown
from homebound._sync.waiters import ThreadWaiter
from homebound.block._gate import Gate
from homebound.testing import until

from .attack import PATIENCE, Attack
from .test_attacked import Scene, attack_all, drive, ledger

if TYPE_CHECKING:
    from collections.abc import Callable


def cut_short(attack: Attack, name: str) -> bool:
    """Whether it raised before the call named had begun anything: then its caller calls again."""
    where = attack.where
    return f".{name}, " in where or (where.startswith("surely, ") and "bytecode 0 " in where)


class Acquire(Scene):
    """Operations that acquire without having to wait: after an exception nothing is acquired."""

    def _try(self, lock: Any, act: Callable[[], Any], free: Callable[[], bool]) -> None:
        self.act = act
        self.state = lambda: (free(), len(lock._waiters))
        self.kept = lambda: free() and not lock._waiters

    def _lock_acquire(self) -> None:
        lock = homebound.Lock()
        self._try(lock, lambda: drive(lock.acquire()), lambda: not lock.locked())

    def _lock_acquire_sync(self) -> None:
        lock = homebound.Lock()
        self._try(lock, lock.acquire_sync, lambda: not lock.locked())

    def _lock_enter(self) -> None:
        lock = homebound.Lock()
        self._try(lock, lock.__enter__, lambda: not lock.locked())

    def _lock_aenter(self) -> None:
        lock = homebound.Lock()
        self._try(lock, lock.__aenter__, lambda: not lock.locked())

    def _semaphore_enter(self) -> None:
        semaphore = homebound.Semaphore(1)
        self._try(semaphore, semaphore.__enter__, lambda: semaphore._value == 1)

    def _rwlock_read(self) -> None:
        lock = homebound.RWLock()
        self._try(lock, lock.acquire_read_sync, lambda: not lock.locked())

    def _rwlock_write(self) -> None:
        lock = homebound.RWLock()
        self._try(lock, lock.write().__enter__, lambda: not lock.locked())


class Leave(Scene):
    """A granted waiter leaves, as its task was cancelled: what it was granted goes to the next."""

    def surely(self, attack: Attack) -> bool:
        return not cut_short(attack, "_leave")

    def _leave_with(self, queue: Any, grant: Callable[[], object], want: Any = None) -> None:
        waiter = ThreadWaiter(queue, want, timed=False)
        queue._join(waiter)
        self.leaves = waiter
        self.grant = grant
        self.act = self.again = lambda: queue._leave(waiter)

    def _lock(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self._leave_with(lock, lock.release)
        self.wait(lock.acquire())
        lock.release()
        self.state = lambda: (lock.locked(), len(lock._waiters), self.leaves.left)

    def _lock_with_none_waiting(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self._leave_with(lock, lock.release)
        lock.release()
        self.state = lambda: (lock.locked(), len(lock._waiters), self.leaves.left)

    def _lock_not_granted(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self._leave_with(lock, lock.release)
        self.state = lambda: (lock.locked(), len(lock._waiters), self.leaves.left)

    def _semaphore(self) -> None:
        semaphore = homebound.Semaphore(0)
        self._leave_with(semaphore, semaphore.release)
        self.wait(semaphore.acquire())
        semaphore.release()
        self.state = lambda: (semaphore._value, len(semaphore._waiters), self.leaves.left)

    def _rwlock(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_write_sync()
        self._leave_with(lock, lock.release, "write")
        self.wait(lock.acquire_read(), lock.acquire_read())
        lock.release()
        self.state = lambda: (lock._owners, len(lock._waiters), self.leaves.left)

    def _rwlock_writer_in_the_way(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_read_sync()
        self._leave_with(lock, int, "write")
        self.wait(lock.acquire_read(), lock.acquire_read())
        self.state = lambda: (lock._owners, len(lock._waiters), self.leaves.left)

    def _condition(self) -> None:
        condition = homebound.Condition()

        async def wait() -> None:
            async with condition:
                await condition.wait()

        self._leave_with(condition, int)
        self.wait(wait())
        with condition:
            condition.notify()
        self.state = lambda: (condition.locked(), len(condition._waiters), self.leaves.left)

    def _barrier(self) -> None:
        barrier = homebound.Barrier(2)
        self._leave_with(barrier, int)
        self.wait(barrier.wait(), barrier.wait(), barrier.wait())
        self.state = lambda: (
            barrier._state,
            barrier._count,
            len(barrier._waiters),
            self.leaves.left,
        )

    def _barrier_alone(self) -> None:
        barrier = homebound.Barrier(2)
        self._leave_with(barrier, int)
        self.state = lambda: (barrier._state, barrier._count, len(barrier._waiters))

    def _getter(self) -> None:
        self._getter_of(homebound.Queue())

    def _getter_of_priorities(self) -> None:
        self._getter_of(homebound.PriorityQueue())

    def _getter_of(self, queue: homebound.Queue[int]) -> None:
        self._leave_with(queue._getters_queue, int)
        late = [ThreadWaiter(queue._getters_queue, None, timed=False) for _ in range(2)]
        for waiter in late:
            queue._getters_queue._join(waiter)
        self.wait(queue.get())
        for item in range(3):
            queue.put_nowait(item)
        # Which of the later getters has which item is open, as they choose again one by one.
        items = lambda: [*queue._queue, *(each.value.item for each in late)]  # noqa: E731
        self.state = lambda: (
            sum(each.done() for each in self.waiters),
            len(set(items())),
            self.leaves.left,
        )
        self.again = lambda: queue.put_nowait(9)

    def _putter(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(1)
        queue.put_nowait(0)
        self._leave_with(queue._slots, int)
        self.wait(queue.put(1))
        queue.get_nowait()
        self.state = lambda: (*ledger(queue), self.leaves.left)


class Drop(Scene):
    """What else is done or undone in steps."""

    def _queue_shutdown_at_once(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(4)
        for item in range(4):
            queue.put_nowait(item)

        async def told() -> None:
            with pytest.raises(QueueShutDown):
                await queue.put(5)

        self.wait(told(), queue.join())
        self.act = self.again = lambda: queue.shutdown(immediate=True)
        self.state = lambda: ledger(queue)

    def surely(self, attack: Attack) -> bool:
        return not cut_short(attack, "shutdown")

    def _gate_reopen(self) -> None:
        gate = Gate()
        gate.shut(self)
        self.wait(gate.wait(), gate.wait())
        self.act = lambda: gate.reopen(self)
        self.again = lambda: gate._drains and gate.reopen(self)
        self.state = lambda: (gate.closed, gate._drains, len(gate._owners), len(gate.inside))
        self.surely = lambda attack: not cut_short(attack, "reopen")  # type: ignore[method-assign]

    def _gate_shut(self) -> None:
        gate = Gate()
        self.act = lambda: gate.shut(self)
        self.state = lambda: (gate.closed, gate._drains, len(gate._owners))
        self.surely = lambda attack: attack is None  # type: ignore[method-assign]
        self.kept = lambda: self.state() == (False, 0, 0)


def kinds(scenes: type[Scene]) -> list[str]:
    helpers = {"_try", "_leave_with", "_getter_of"}
    names = [name for name in vars(scenes) if name[0] == "_" and name[1] != "_"]
    return [name[1:] for name in names if name not in helpers]


@pytest.mark.parametrize("kind", kinds(Acquire))
def test_what_is_acquired_is_returned_or_free(kind: str):
    assert attack_all(Acquire, kind) > 0 or kind == "lock_aenter"  # where nothing can raise


@pytest.mark.parametrize("kind", kinds(Leave))
def test_a_waiter_leaves(kind: str):
    assert attack_all(Leave, kind) > 0


@pytest.mark.parametrize("kind", kinds(Drop))
def test_all_of_it_at_last(kind: str):
    assert attack_all(Drop, kind) > 0


# A wait in a thread, and what it is granted meanwhile.


class Wait:
    """`act` waits, and another thread gives; both once, and then all adds up."""

    def __init__(self, kind: str) -> None:
        self.waiting: Callable[[], Any]
        self.give: Callable[[], object]
        self.act: Callable[[], object]
        self.check: Callable[[bool], bool]  # given whether `act` has raised
        self.state: Callable[[], object] = int  # for a failure's message
        getattr(self, kind)()

    def lock(self) -> None:
        lock = homebound.Lock()
        lock.acquire_sync()
        self.act, self.give, self.waiting = lock.acquire_sync, lock.release, lambda: lock._waiters
        self.check = lambda raised: lock.locked() is not raised

    def semaphore(self) -> None:
        semaphore = homebound.Semaphore(0)
        self.act, self.give = semaphore.__enter__, semaphore.release
        self.waiting = lambda: semaphore._waiters
        self.check = lambda raised: semaphore._value == raised

    def rwlock(self) -> None:
        lock = homebound.RWLock()
        lock.acquire_read_sync()
        self.act, self.give = lock.write().__enter__, lock.release
        self.waiting = lambda: lock._waiters
        self.check = lambda raised: lock._owners == (0 if raised else -1)

    def event(self) -> None:
        event = homebound.Event()
        self.act, self.give, self.waiting = event.wait_sync, event.set, lambda: event._waiters
        self.check = lambda _: not event._waiters

    def barrier(self) -> None:
        barrier = homebound.Barrier(2)

        def give() -> None:
            try:
                barrier.wait_sync(0.1)
            except TimeoutError:
                pass

        self.act, self.give, self.waiting = barrier.wait_sync, give, lambda: barrier._waiters
        self.check = lambda _: (barrier._count, barrier._state) == (0, "filling")

    def queue_get(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue()
        self.act, self.give = queue.get_sync, lambda: queue.put_nowait(1)
        self.waiting = lambda: queue._getters
        self.check = lambda raised: queue.qsize() == raised and not queue._getters_queue._handed

    def queue_put(self) -> None:
        queue: homebound.Queue[int] = homebound.Queue(1)
        queue.put_nowait(0)
        self.act, self.give = lambda: queue.put_sync(1), queue.get_nowait
        self.waiting = lambda: queue._putters

        def check(_raised: bool) -> bool:  # noqa: FBT001
            count = queue.qsize()
            return (len(queue._unfinished) - 1, queue._slots._value) == (count, 1 - count)  # type: ignore[union-attr]

        self.check = check
        self.state = lambda: ledger(queue)


WAITS = [name for name in vars(Wait) if name[0] != "_"]


@pytest.mark.parametrize("kind", WAITS)
def test_a_wait_in_a_thread(kind: str):
    at = 0
    while True:
        wait = Wait(kind)
        attack = Attack(at)
        over = threading.Event()

        def give(wait: Wait = wait, over: threading.Event = over) -> None:
            until(lambda: wait.waiting() or over.is_set())
            wait.give()

        giver = threading.Thread(target=give)
        giver.start()
        try:
            raised = attack.run(wait.act)
        finally:
            over.set()
            giver.join(PATIENCE)
        try:
            until(lambda: wait.check(raised), patience=5)  # noqa: B023  (called at once)
        except AssertionError as error:
            raise AssertionError((attack.where, raised, wait.state())) from error
        if attack.left >= 0:
            break
        at += 1
    assert at > 0


def test_a_wait_at_home_that_is_interrupted():
    """The task that waits in place of its thread has been granted the lock by then."""
    lock = homebound.Lock()

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        free = []
        for _ in range(20):
            lock.acquire_sync()
            loop.call_soon(lock.release)
            with pytest.raises(ZeroDivisionError):
                interrupted(lock.acquire_sync)
            free.append(not lock.locked())
        return free

    assert all(homebound.run(main()))


def interrupted(wait: Callable[[], object]) -> None:
    """Raise as `block_on` returns, as a signal handler may there."""

    def trace(frame: Any, event: str, _: Any) -> Any:
        if event == "return" and frame.f_code is homebound.block_on.__code__:
            raise ZeroDivisionError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        wait()
    finally:
        sys.settrace(before)
