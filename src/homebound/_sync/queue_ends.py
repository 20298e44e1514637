"""The three waits of a queue: for an item, for a free slot, for all work to be done."""

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
        """The queue was shut down: nothing can be put, or it is empty and nothing will come."""


MOST = 1024  # how many marks of unfinished work lie in the deque before they become a number


class Getters(WaitQueue):
    """Those who wait for an item. It is handed to them: what they get is theirs before they run.

    A getter that was handed one has *come* when it calls `unpack`. Until then it may leave, and its
    item goes to those behind it, each passing its own on: so items are got in the order in which
    they lay, whoever was cancelled. Under the guard, whenever it is free:

        the items in `_handed`, and then those in the store, are in the order in which they lay

    A grant moves the first of the store to the end of `_handed`; who comes takes his out; for one
    who leaves the later ones are passed on, and the last goes back to the front of the store. What
    others take from the store meanwhile, without the guard, lay behind all that was handed.

    Whoever takes a parcel out of `_handed` has it to himself: its getter as it comes, or he who
    passes on, under the guard, and puts it in again. Taking out is one operation of a deque, atomic
    by its own lock, or by the GIL.
    """

    __slots__ = ("_closed", "_dropping", "_handed", "_items", "_of", "_slots", "_unfinished")

    _of: int  # the id of the queue that it is an end of, for dump(); so in the other two

    def __init__(
        self, items: Fifo | Ordered, unfinished: Unfinished, slots: Slots | None = None
    ) -> None:
        super().__init__(items)  # type: ignore[arg-type]  # what it needs of a stock both have
        self._items = items
        self._unfinished = unfinished
        self._slots = slots
        self._handed: deque[Parcel] = deque()  # to who has not come, in order. Others only remove
        self._closed = False  # under the guard
        self._dropping = False  # what comes back is dropped, too. Under the guard

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
        """It has come for what it was granted: the item. Raises QueueShutDown if it is that."""
        if waiter.error is not None:
            raise waiter.error
        parcel: Parcel = waiter.value
        try:
            self._handed.remove(parcel)
        except ValueError:  # somebody passes on at this moment
            with self._guard:
                self._handed.remove(parcel)
        return parcel.item

    def get_now(self) -> Any:
        """The next item. Raises asyncio.QueueEmpty or QueueShutDown if there is none."""
        with self._guard:
            if not self._waiters:  # else what there is, is theirs
                try:
                    return self._items.pop_next()
                except IndexError:
                    pass
            if self._closed:
                raise QueueShutDown
        raise asyncio.QueueEmpty

    def retract(self, item: Any) -> bool:
        """Take an item out that was put too late; False if somebody has it."""
        with self._guard:
            return self._items.retract(item)

    def drop_all(self) -> None:
        """Drop what there is, and what comes back: it counts as done."""
        dropped = 0
        with self._guard:  # else a `retract` in between hides a part
            self._dropping = True
            while self._items:
                try:
                    self._items.pop_next()
                except IndexError:
                    break
                dropped += 1
        for _ in range(dropped):
            with suppress(ValueError):  # it was reported done before anybody got it
                self._unfinished.done()
            if self._slots is not None:
                self._slots.release()

    def close(self) -> None:
        """Nothing will come any more: who waits, and who comes and finds nothing, is told."""
        with self._guard:
            self._closed = True
        self._serve()


class Slots(Semaphore):
    """Those who wait for room. A free slot is handed to them, and they put their item into it."""

    __slots__ = ("_closed", "_of")

    _of: int

    def __init__(self, value: int) -> None:
        super().__init__(value)
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
        """Take a slot; False if there is none, for certain."""
        if self._acquire_now():
            return True
        with self._guard:
            return not self._waiters and self._take(None)

    def close(self) -> None:
        """Nothing can be put any more: who waits is told."""
        with self._guard:
            self._closed = True
        self._serve()


class Unfinished(WaitQueue):
    """What was put and not reported done, and those who wait for there to be none.

    A mark in a deque for each, because adding and taking one is atomic, and a number for most of
    them where nobody reports.
    """

    __slots__ = ("_marks", "_more", "_of")

    _of: int

    def __init__(self) -> None:
        self._marks: deque[None] = deque()
        self._more = 0  # under the guard
        super().__init__(self._marks)

    def __len__(self) -> int:
        return len(self._marks) + self._more

    def stow(self) -> None:
        """There are many marks: make a number of most."""
        taken: list[None] = []
        with self._guard:
            try:  # a loop in C: this is half of what a mark costs
                taken.extend(starmap(self._marks.pop, repeat((), len(self._marks) - MOST // 2)))
            except IndexError:
                pass  # reported done meanwhile; what was popped before is in the list
            self._more += len(taken)

    def done(self) -> None:
        """One is done. Raises ValueError if there is none."""
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
        """Knowing that all is done is not used up."""
