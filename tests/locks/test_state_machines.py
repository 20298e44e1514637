"""Locks, by Hypothesis, against simple models; see machines.py."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import homebound

from .machines import INDEX, LOOPS, SETTINGS, Machine


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
        """And cancel its receiver: it goes on to the next waiter."""
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


TestLock = LockMachine.TestCase
TestRWLock = RWLockMachine.TestCase
TestCondition = ConditionMachine.TestCase
TestSemaphore = SemaphoreMachine.TestCase
TestBarrier = BarrierMachine.TestCase
for case in (TestLock, TestRWLock, TestCondition, TestSemaphore, TestBarrier):
    case.settings = SETTINGS
del case
