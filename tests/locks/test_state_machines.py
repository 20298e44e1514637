"""Hypothesis against simple models: tasks of two loops, one ours and one asyncio's, and a thread.

Both loops are run by the test's own thread, in turn, so every run can be repeated. Between a grant
and the step in which the waiter would take it, anything may happen.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import homebound

LOOPS = st.integers(0, 1)
INDEX = st.integers(0, 20)
STEPS = 8


class Machine(RuleBasedStateMachine):
    """Two loops, and the tasks that wait, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.loops = [homebound.new_event_loop(), asyncio.SelectorEventLoop()]
        self.waiting: list[Any] = []  # what the model says waits: (task, what it wants)
        self.ended: list[Any] = []  # what the model says is over: (task, its result or "cancelled")

    def spawn(self, loop: int, coro: Any) -> Any:
        """It begins after the rule: nothing of a rule may come after it."""
        return self.loops[loop].create_task(coro)

    def settle(self) -> None:
        for _ in range(2):
            for loop in self.loops:
                loop.run_until_complete(self._steps())

    async def _steps(self) -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)

    def pick(self, index: int) -> Any:
        return self.waiting.pop(index % len(self.waiting))

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.settle()
        for task, _ in self.waiting:
            assert not task.done()
        for task, result in self.ended:
            assert task.done()
            assert ("cancelled" if task.cancelled() else task.result()) == result
        self.ended.clear()
        self.look()

    def look(self) -> None:
        """What is fought over looks as the model says."""
        raise NotImplementedError

    def teardown(self) -> None:
        for task, _ in self.waiting:
            task.cancel()
        self.settle()
        for loop in self.loops:
            loop.close()


class LockMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.lock = homebound.Lock()
        self.held = False

    @rule(loop=LOOPS)
    def acquire(self, loop: int) -> None:
        task = self.spawn(loop, self.lock.acquire())
        if self.held:
            self.waiting.append((task, None))
        else:
            self.held = True
            self.ended.append((task, True))

    @rule()
    def acquire_in_a_thread(self) -> None:
        assert self.lock.acquire_sync(timeout=0) is not self.held
        self.held = True

    def _release(self) -> None:
        self.lock.release()
        if self.waiting:
            task, _ = self.waiting.pop(0)
            self.ended.append((task, True))
        else:
            self.held = False

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self._release()

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))

    @precondition(lambda self: self.held and self.waiting)
    @rule()
    def release_and_cancel_whom_it_went_to(self) -> None:
        task, _ = self.waiting.pop(0)
        self.lock.release()
        task.cancel()
        self.ended.append((task, "cancelled"))
        if self.waiting:  # it passed the lock on
            self.ended.append((self.waiting.pop(0)[0], True))
        else:
            self.held = False

    @precondition(lambda self: not self.held)
    @rule()
    def release_a_free_one(self) -> None:
        try:
            self.lock.release()
        except RuntimeError:
            return
        raise AssertionError

    def look(self) -> None:
        assert self.lock.locked() is self.held
        assert len(self.lock._waiters) == len(self.waiting)


class SemaphoreMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.semaphore = homebound.BoundedSemaphore(2)
        self.out = 0  # permits

    @rule(loop=LOOPS)
    def acquire(self, loop: int) -> None:
        task = self.spawn(loop, self.semaphore.acquire())
        if self.out == 2:
            self.waiting.append((task, None))
        else:
            self.out += 1
            self.ended.append((task, True))

    @rule()
    def acquire_in_a_thread(self) -> None:
        free = self.out < 2
        assert self.semaphore.acquire_sync(timeout=0) is free
        self.out += free

    @precondition(lambda self: self.out)
    @rule(cancel=st.booleans())
    def release(self, cancel: bool) -> None:  # noqa: FBT001  (drawn)
        """And cancel whom it went to: it goes on to the next."""
        self.semaphore.release()
        if cancel and self.waiting:
            task, _ = self.waiting.pop(0)
            task.cancel()
            self.ended.append((task, "cancelled"))
        if self.waiting:
            self.ended.append((self.waiting.pop(0)[0], True))
        else:
            self.out -= 1

    @precondition(lambda self: not self.out)
    @rule()
    def release_above_its_bound(self) -> None:
        try:
            self.semaphore.release()
        except ValueError:
            return
        raise AssertionError

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))

    def look(self) -> None:
        assert self.semaphore._value == 2 - self.out
        assert len(self.semaphore._waiters) == len(self.waiting)


class BarrierMachine(Machine):
    """Groups of three. Who completes one passes last; all of it have left before the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = homebound.Barrier(3)
        self.broken = False

    async def wait(self) -> Any:
        try:
            return await self.barrier.wait() in (0, 1, 2)
        except asyncio.BrokenBarrierError:
            return "broken"

    def let_go(self, result: Any) -> None:
        self.ended += [(task, result) for task, _ in self.waiting]
        self.waiting.clear()

    @rule(loop=LOOPS)
    def come(self, loop: int) -> None:
        self.waiting.append((self.spawn(loop, self.wait()), None))
        if self.broken:
            self.let_go("broken")
        elif len(self.waiting) == 3:
            self.let_go(True)

    @rule()
    def abort(self) -> None:
        self.barrier.abort_sync()
        self.broken = True
        self.let_go("broken")

    @rule()
    def reset(self) -> None:
        self.barrier.reset_sync()
        self.broken = False
        self.let_go("broken")

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))

    def look(self) -> None:
        assert self.barrier.broken is self.broken
        assert self.barrier.n_waiting == len(self.waiting) == len(self.barrier._waiters)


class RWLockMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.rw = homebound.RWLock()
        self.owners = 0

    def admit(self) -> None:
        while self.waiting:
            task, write = self.waiting[0]
            if self.owners < 0 or (write and self.owners):
                return
            self.owners = -1 if write else self.owners + 1
            del self.waiting[0]
            self.ended.append((task, True))

    @rule(loop=LOOPS, write=st.booleans())
    def acquire(self, loop: int, write: bool) -> None:  # noqa: FBT001
        acquire = self.rw.acquire_write if write else self.rw.acquire_read
        self.waiting.append((self.spawn(loop, acquire()), write))
        self.admit()

    @precondition(lambda self: self.owners)
    @rule()
    def release(self) -> None:
        self.rw.release()
        self.owners = max(self.owners - 1, 0)
        self.admit()

    @precondition(lambda self: self.owners < 0)
    @rule()
    def downgrade(self) -> None:
        self.rw.downgrade()
        self.owners = 1
        self.admit()

    @precondition(lambda self: self.owners == 1 and not self.waiting)
    @rule(loop=LOOPS)
    def upgrade(self, loop: int) -> None:
        self.ended.append((self.spawn(loop, self.rw.upgrade()), True))
        self.owners = -1

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))
        self.admit()

    def look(self) -> None:
        assert self.rw._owners == self.owners
        assert len(self.rw._waiters) == len(self.waiting)


class ConditionMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.condition = homebound.Condition()

    async def wait(self) -> bool:
        async with self.condition:
            return await self.condition.wait()

    @rule(loop=LOOPS)
    def begin(self, loop: int) -> None:
        self.waiting.append((self.spawn(loop, self.wait()), None))

    @rule(n=st.integers(0, 3))
    def notify(self, n: int) -> None:
        with self.condition:
            self.condition.notify(n)
        for task, _ in self.waiting[:n]:
            self.ended.append((task, True))
        del self.waiting[:n]

    @precondition(lambda self: self.waiting)
    @rule()
    def notify_and_cancel_whom_it_reached(self) -> None:
        task, _ = self.waiting.pop(0)
        with self.condition:
            self.condition.notify()
            task.cancel()
        self.ended.append((task, "cancelled"))
        if self.waiting:  # the notification went on to the next
            self.ended.append((self.waiting.pop(0)[0], True))

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))

    def look(self) -> None:
        assert not self.condition.locked()
        assert len(self.condition._waiters) == len(self.waiting)


class QueueMachine(Machine):
    maxsize = 2

    def __init__(self) -> None:
        super().__init__()
        self.queue: Any = homebound.Queue(self.maxsize)
        self.items: list[int] = []  # in it; `waiting` are getters, `putting` putters with items
        self.putting: list[Any] = []
        self.next = 0

    def put_in(self, item: int) -> None:
        self.items.append(item)

    def take_out(self) -> int:
        return self.items.pop(0)

    def flow(self) -> None:
        """What follows, until nothing does."""
        while True:
            if self.waiting and self.items:
                self.ended.append((self.waiting.pop(0)[0], self.take_out()))
            elif self.putting and len(self.items) < self.maxsize:
                task, item = self.putting.pop(0)
                self.ended.append((task, None))
                self.put_in(item)
            else:
                return

    @rule(loop=LOOPS)
    def put(self, loop: int) -> None:
        self.next += 1
        self.putting.append((self.spawn(loop, self.queue.put(self.next)), self.next))
        self.flow()

    @rule(loop=LOOPS)
    def get(self, loop: int) -> None:
        self.waiting.append((self.spawn(loop, self.queue.get()), None))
        self.flow()

    @rule()
    def get_nowait(self) -> None:
        if self.items:
            assert self.queue.get_nowait() == self.take_out()
            self.flow()
            return
        try:
            self.queue.get_nowait()
        except asyncio.QueueEmpty:
            return
        raise AssertionError

    @precondition(lambda self: self.waiting)
    @rule(index=INDEX)
    def cancel_a_getter(self, index: int) -> None:
        task, _ = self.pick(index)
        task.cancel()
        self.ended.append((task, "cancelled"))

    @precondition(lambda self: self.waiting)
    @rule()
    def put_and_cancel_whom_it_went_to(self) -> None:
        self.next += 1
        task, _ = self.waiting.pop(0)
        self.queue.put_nowait(self.next)
        task.cancel()
        self.ended.append((task, "cancelled"))
        self.put_in(self.next)
        self.flow()

    @precondition(lambda self: self.putting)
    @rule(index=INDEX)
    def cancel_a_putter(self, index: int) -> None:
        task, _ = self.putting.pop(index % len(self.putting))
        task.cancel()
        self.ended.append((task, "cancelled"))

    def look(self) -> None:
        assert sorted(self.queue._queue) == sorted(self.items)
        assert len(self.queue._getters) == len(self.waiting)
        assert len(self.queue._putters) == len(self.putting)
        assert all(not task.done() for task, _ in self.putting)

    def teardown(self) -> None:
        self.waiting += self.putting
        super().teardown()


class PriorityQueueMachine(QueueMachine):
    """The same; the numbers that are put grow, so it gives them out as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = homebound.PriorityQueue(self.maxsize)

    def put_in(self, item: int) -> None:
        heapq.heappush(self.items, item)

    def take_out(self) -> int:
        return heapq.heappop(self.items)


class ShutQueueMachine(QueueMachine):
    """A queue that is shut down at some time: nothing goes in any more."""

    def __init__(self) -> None:
        super().__init__()
        self.shut = False

    async def told(self, call: Any) -> Any:
        try:
            return await call
        except homebound.QueueShutDown:
            return "shut"

    def spawn(self, loop: int, coro: Any) -> Any:
        return super().spawn(loop, self.told(coro))

    def flow(self) -> None:
        if self.shut:  # who waits now has come after it
            self.ended += [(task, "shut") for task, _ in self.putting]
            self.putting.clear()
        super().flow()
        if self.shut:
            self.ended += [(task, "shut") for task, _ in self.waiting]
            self.waiting.clear()

    @precondition(lambda self: self.waiting or self.items)
    @precondition(lambda self: self.waiting or self.items)
    @rule(immediate=st.booleans())
    def shutdown(self, immediate: bool) -> None:  # noqa: FBT001  (drawn)
        self.queue.shutdown(immediate)
        self.shut = True
        if immediate:
            self.items.clear()
        self.flow()

    @rule()
    def get_nowait(self) -> None:
        if self.items or not self.shut:
            super().get_nowait()
            return
        try:
            self.queue.get_nowait()
        except homebound.QueueShutDown:
            return
        raise AssertionError

    @precondition(lambda self: self.waiting and not self.shut)
    @rule()
    def put_and_cancel_whom_it_went_to(self) -> None:
        super().put_and_cancel_whom_it_went_to()


_settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLock = LockMachine.TestCase
TestRWLock = RWLockMachine.TestCase
TestCondition = ConditionMachine.TestCase
TestQueue = QueueMachine.TestCase
TestPriorityQueue = PriorityQueueMachine.TestCase
TestSemaphore = SemaphoreMachine.TestCase
TestBarrier = BarrierMachine.TestCase
TestShutQueue = ShutQueueMachine.TestCase
_locks = (TestLock, TestRWLock, TestCondition, TestSemaphore, TestBarrier)
_queues = (TestQueue, TestPriorityQueue, TestShutQueue)
for case in _locks + _queues:
    case.settings = _settings
del case
