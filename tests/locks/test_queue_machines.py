"""Queues, by Hypothesis, against simple models; see machines.py."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import homebound

from .machines import INDEX, LOOPS, SETTINGS, Machine


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
        if self.shut:  # those that wait now have come after it
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


TestQueue = QueueMachine.TestCase
TestPriorityQueue = PriorityQueueMachine.TestCase
TestShutQueue = ShutQueueMachine.TestCase
for case in (TestQueue, TestPriorityQueue, TestShutQueue):
    case.settings = SETTINGS
del case
