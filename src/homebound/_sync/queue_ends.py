"""The three wait queues of a Queue: for an item, for a free slot, for all work to be done."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import suppress
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Any

from .semaphore import Semaphore
from .store import Parcel
from .wait_queue import WaitQueue

if TYPE_CHECKING:
    from .store import Fifo, Ordered
    from .waiters import Waiter

if sys.version_info >= (3, 13):
    QueueShutDown = asyncio.QueueShutDown
else:

    class QueueShutDown(Exception):  # noqa: N818  (asyncio's name, from 3.13 on)
        """Raised after `shutdown`, by a put, or by a get that finds the queue empty."""


MOST = 1024  # how many marks of unfinished work the deque holds before most become a number


class Getters(WaitQueue):
    """The waiters for an item. A waiter owns an item handed over to it before it runs.

    It *collects* its item by `unpack`. Until then it may leave: its item then goes to the waiters
    behind it, each passing its own on. So items are got in the order in which they lay, whichever
    waiters were cancelled. Whenever the guard is free:

        the items in `_handed`, and then those in the store, are in the order in which they lay

    A grant moves the first item of the store to the end of `_handed`. A waiter that collects takes
    its own out. When a waiter leaves, the later items are passed on, and the last one goes back to
    the front of the store. Items that other getters take from the store meanwhile, without the
    guard, lay behind all that were handed over.

    The taker of a parcel from `_handed` has it to itself: its waiter, which collects it, or the
    thread that passes items on, under the guard, and puts it in again. Taking one out is a single
    operation of a deque, atomic by its own lock, or by the GIL.
    """

    __slots__ = ("_closed", "_dropping", "_handed", "_items", "_slots", "_unfinished", "queue_id")

    def __init__(
        self, queue_id: int, items: Fifo | Ordered, unfinished: Unfinished, slots: Slots | None
    ) -> None:
        super().__init__(items)  # type: ignore[arg-type]  # both have what it needs of a stock
        self.queue_id = queue_id  # the id of the Queue that it is a part of, for dump()
        self._items = items
        self._unfinished = unfinished
        self._slots = slots
        self._handed: deque[Parcel] = deque()  # not collected yet, in order; see above
        self._closed = False  # under the guard
        self._dropping = False  # items that come back are dropped, too. Under the guard

    def _take(self, waiter: Waiter) -> bool:
        try:
            item = self._items.pop_next()
        except IndexError:
            if not self._closed:
                return False
            waiter.error = QueueShutDown()
            return True
        waiter.value = parcel = Parcel()
        parcel.item = item
        self._handed.append(parcel)
        return True

    def _give_back(self, waiter: Waiter) -> None:
        if waiter.error is not None:
            return
        later: list[Parcel] = []
        with self._guard:
            handed = self._handed
            while True:  # not `while (...) is not waiter.value`: see BigLock._wait
                last = handed.pop()
                if last is waiter.value:
                    break
                later.append(last)
            later.reverse()
            self._items.put_back(last.item, later)
            handed.extend(later)
            dropping = self._dropping
        if dropping:
            self.drop_all()
        else:
            self._serve()

    def unpack(self, waiter: Waiter) -> Any:
        """Collect the item handed over to `waiter`; QueueShutDown if it was woken for that."""
        if waiter.error is not None:
            raise waiter.error
        parcel: Parcel = waiter.value
        try:
            self._handed.remove(parcel)
        except ValueError:  # another thread passes items on at this moment
            with self._guard:
                self._handed.remove(parcel)
        return parcel.item

    def get_now(self) -> Any:
        """Take the next item. Raises asyncio.QueueEmpty or QueueShutDown if there is none."""
        with self._guard:
            if not self._waiters:  # else the items are theirs
                try:
                    return self._items.pop_next()
                except IndexError:
                    pass
            if self._closed:
                raise QueueShutDown
        raise asyncio.QueueEmpty

    def retract(self, item: Any) -> bool:
        """Take out an item that was put too late; False if a getter has it."""
        with self._guard:
            return self._items.retract(item)

    def drop_all(self) -> None:
        """Drop all items, and those that come back later; they count as done."""
        dropped = 0
        with self._guard:  # else a `retract` in between hides some items
            self._dropping = True
            while self._items:
                try:
                    self._items.pop_next()
                except IndexError:
                    break
                dropped += 1
        for _ in range(dropped):
            with suppress(ValueError):  # it was reported done before it was got
                self._unfinished.done()
            if self._slots is not None:
                self._slots.release()

    def close(self) -> None:
        """Have waiters, and later gets, raise QueueShutDown where there is no item."""
        with self._guard:
            self._closed = True
        self._serve()


class Slots(Semaphore):
    """The waiters for room. Each is handed a free slot, and then puts its item into it."""

    __slots__ = ("_closed", "queue_id")

    def __init__(self, value: int, queue_id: int) -> None:
        super().__init__(value)
        self.queue_id = queue_id
        self._closed = False  # under the guard

    def _take(self, waiter: Waiter | None) -> bool:
        if self._closed and waiter is not None:
            waiter.error = QueueShutDown()
            return True
        return super()._take(waiter)

    def _give_back(self, waiter: Waiter) -> None:
        if waiter.error is None:
            super()._give_back(waiter)

    def take_now(self) -> bool:
        """Take a slot; False if there is certainly none."""
        if self._acquire_now():
            return True
        with self._guard:
            return not self._waiters and self._take(None)

    def close(self) -> None:
        """Have all waiters raise QueueShutDown."""
        with self._guard:
            self._closed = True
        self._serve()


class Unfinished(WaitQueue):
    """The count of items put and not reported done, and the waiters for it to be 0.

    Each has a mark in a deque, because adding and taking one is atomic. Where there are many marks,
    because no item is ever reported, most are turned into a number.
    """

    __slots__ = ("_marks", "_more", "queue_id")

    def __init__(self, queue_id: int) -> None:
        self._marks: deque[None] = deque()
        self._more = 0  # items counted here instead of by a mark. Under the guard
        super().__init__(self._marks)
        self.queue_id = queue_id

    def __len__(self) -> int:
        return len(self._marks) + self._more

    def stow(self) -> None:
        """Turn most of the marks into a number."""
        taken: list[None] = []
        with self._guard:
            try:  # a loop in C: this is half of what a mark costs
                taken.extend(starmap(self._marks.pop, repeat((), len(self._marks) - MOST // 2)))
            except IndexError:
                pass  # reported done meanwhile; what was popped before is in the list
            self._more += len(taken)

    def done(self) -> None:
        """Count one item less. Raises ValueError if there is none."""
        try:
            self._marks.pop()
        except IndexError:
            self._fetch()
        if self._waiters and not self._marks:  # after the pop: pairs with _join
            self._serve()

    def _fetch(self) -> None:
        with self._guard:
            more = min(self._more, MOST // 2)
            self._more -= more
            self._marks.extend(repeat(None, more))
            try:
                self._marks.pop()
            except IndexError:
                raise ValueError("task_done() called too many times") from None

    def _take(self, _waiter: Waiter) -> bool:
        return not self._marks and not self._more

    def _give_back(self, _waiter: Waiter) -> None:
        """Do nothing: a wait uses nothing up."""
