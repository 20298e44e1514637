"""The three wait queues of a Queue: for an item, for a free slot, for all work to be done."""

from __future__ import annotations

import asyncio
import sys
from _thread import start_new_thread as start_thread
from collections import deque
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Any

from .semaphore import Semaphore
from .store import Parcel
from .tokens import TOKEN
from .wait_queue import WaitQueue
from .waiters import Waiter

if TYPE_CHECKING:
    from .store import Fifo, Ordered

if sys.version_info >= (3, 13):
    QueueShutDown = asyncio.QueueShutDown
else:

    class QueueShutDown(Exception):  # noqa: N818  (asyncio's name, from 3.13 on)
        """Raised after `shutdown`, by a put, or by a get that finds the queue empty."""


MOST = 1024  # how many marks of unfinished work the deque holds before most become a number


def queue_title(name: str | None) -> str:
    """Return what begins a message about a Queue, as `_titled`. Called from: any thread."""
    return "the Queue" if name is None else f"Queue {name!r}"


NOTHING = object()
HELD, FREEING, FREED = range(3)  # how far a get that has its item has come: see Getters._undo


def _shown_end(what: str, end: Getters | Slots | Unfinished) -> str:
    """Return the repr of an end of a Queue, for messages: users know the Queue, not its ends."""
    named = f"at {end.queue_id:#x}" if end.name is None else repr(end.name)
    return f"<{what} Queue {named}, waiters:{len(end._waiters)}>"


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

    __slots__ = (
        "_closed",
        "_dropping",
        "_handed",
        "_items",
        "_slots",
        "_taken",
        "_undone",
        "_unfinished",
        "_unfreed",
        "queue_id",
    )

    def __init__(
        self,
        queue_id: int,
        name: str | None,
        items: Fifo | Ordered,
        unfinished: Unfinished,
        slots: Slots | None,
    ) -> None:
        # Both kinds have what it needs of a stock.
        super().__init__(items, name=name)  # type: ignore[arg-type]
        self.queue_id = queue_id  # the id of the Queue that it is a part of
        self._items = items
        self._taken = items.taker()
        self._unfinished = unfinished
        self._slots = slots
        self._handed: deque[Parcel] = deque()  # not collected yet, in order; see above
        self._closed = False  # under the guard
        self._dropping = False  # items that come back are dropped, too. Under the guard
        # How many items were dropped and are not counted as done yet, and how many have not had
        # their slots freed. Under the guard
        self._undone = self._unfreed = 0

    def __repr__(self) -> str:
        return _shown_end("items of", self)

    def _take(self, waiter: Waiter) -> bool:
        if not self._items:
            if self._closed:
                waiter.error = self._exhausted_error()
                waiter.granted = True
            return waiter.granted
        waiter.value = parcel = Parcel()
        handed = self._handed
        try:
            handed.append(parcel)
            for parcel.item in self._taken:
                waiter.granted = True
                return True
        except IndexError:
            pass  # taken by a get that needs no guard
        finally:
            if not waiter.granted and parcel in handed:
                handed.remove(parcel)
        return False

    def _give_back(self, waiter: Waiter) -> None:
        if waiter.error is not None:
            waiter.left = True
            return
        handed = self._handed
        parcels: list[Parcel] = []  # the waiter's and the later ones, from the last
        try:
            for last in starmap(handed.pop, repeat(())):
                parcels += (last,)  # not by a call: a signal handler could raise, and lose it
                if last is not waiter.value:
                    continue
                break
            later = parcels[-2::-1]
            late = self._items.put_back(waiter.value.item, later)
        except BaseException:
            handed.extend(reversed(parcels))
            raise
        handed += later
        waiter.left = True
        if late is not None:
            raise late

    def _go(self, waiter: Waiter) -> None:
        super()._go(waiter)
        if self._dropping:
            self.drop_all()

    def unpack(self, waiter: Waiter) -> Any:
        """Collect the item handed over to `waiter`; QueueShutDown if it was woken for that."""
        if waiter.error is not None:
            raise waiter.error
        parcel: Parcel = waiter.value
        slots = self._slots
        stage = HELD
        try:
            try:
                self._handed.remove(parcel)
            except ValueError:  # another thread passes items on at this moment
                with self._guard:
                    self._handed.remove(parcel)
            if slots is not None:
                stage = FREEING
                slots._permits.append(None)
                stage = FREED
                if slots._waiters:  # after the append: pairs with _join
                    slots._serve()
        except BaseException as error:
            waiter.want = [parcel.item, stage, error]  # for `refuse`
            raise
        return parcel.item

    def refuse(self, waiter: Waiter) -> None:
        """Give back what a waiter whose `unpack` raised was granted. No-op a second time."""
        if waiter.error is not None or waiter.left:
            return
        with self._guard:
            collected = waiter.value not in self._handed
        if not collected:
            self._leave(waiter)
        elif waiter.want is not None:
            self._undo(waiter.want)

    def _undo(self, taken: list[Any]) -> None:
        """Give back what a get had taken that was interrupted: `[item, stage, error]`.

        After an exception it is called again, with the same list, and goes on where it was cut
        short; in a new thread, if there is no stack left where the item was taken.
        """
        slots = self._slots
        if slots is not None:
            slot = taken[1]
            if type(slot) is int:  # the stage: was the slot released?
                by_itself = isinstance(taken[2], (MemoryError, RecursionError))
                freed = slot == FREED or (slot == FREEING and not by_itself)
                slot = taken[1] = _NoWaiter(slots, None) if freed else None
            if slot is not None:
                slots.take_later(slot)
        with self._guard:
            if taken[0] is not NOTHING:
                self._items.put_back(taken[0], ())
                taken[0] = NOTHING
        self._serve()

    def get_now(self) -> Any:
        """Take the next item. Raises asyncio.QueueEmpty or QueueShutDown if there is none."""
        item: Any = NOTHING
        slots = self._slots
        stage = HELD
        try:
            with self._guard:
                if not self._waiters:  # else the items are theirs
                    try:
                        for item in self._taken:  # noqa: B007  (returned below)
                            break
                    except IndexError:
                        pass
                closed = self._closed
            if slots is not None and item is not NOTHING:
                stage = FREEING
                slots._permits.append(None)
                stage = FREED
                if slots._waiters:  # after the append: pairs with _join
                    slots._serve()
        except BaseException as error:
            if item is not NOTHING:
                taken = [item, stage, error]
                try:
                    self._undo(taken)
                except BaseException:  # noqa: BLE001  (surely.py)
                    start_thread(self._undo, (taken,))
            raise
        if item is NOTHING:
            raise self._exhausted_error() if closed else self._empty_error()
        return item

    def _empty_error(self) -> asyncio.QueueEmpty:
        named = queue_title(self.name)
        return asyncio.QueueEmpty(f"{named} is empty: get() waits for an item, as get_sync() does")

    def _exhausted_error(self) -> QueueShutDown:
        return QueueShutDown(f"{queue_title(self.name)} was shut down, and has no more items")

    def retract(self, item: Any) -> bool:
        """Take out an item that was put too late; False if a getter has it."""
        with self._guard:
            return self._items.retract(item)

    def drop_all(self) -> None:
        """Drop all items, and those that come back later; they count as done."""
        slots, unfinished = self._slots, self._unfinished
        with self._guard:  # else a `retract` in between hides some items
            self._dropping = True
            try:
                for _ in self._taken:
                    self._undone += 1  # no call between the taking and the two counts
                    self._unfreed += 1
            except IndexError:
                pass  # there are no more
            while True:  # not `while self._undone`: the jump rule
                if not self._undone:
                    break
                unfinished.take_mark()
                self._undone -= 1  # no call since the taking
            while True:
                if not self._unfreed:
                    break
                if slots is not None:
                    slots._permits += TOKEN
                self._unfreed -= 1
        unfinished._serve()
        if slots is not None:
            slots._serve()

    def close(self) -> None:
        """Have waiters, and later gets, raise QueueShutDown where there is no item."""
        with self._guard:
            self._closed = True
        self._serve()


class _NoWaiter(Waiter):
    """A waiter that no task or thread stands behind: what it is granted is gone for good."""

    __slots__ = ()

    who = None

    def wake(self) -> bool:
        """Do nothing: nothing waits. Called from: any thread."""
        return True


class Slots(Semaphore):
    """The waiters for room. Each is handed a free slot, and then puts its item into it."""

    __slots__ = ("_closed", "queue_id")

    def __init__(self, value: int, queue_id: int, name: str | None) -> None:
        super().__init__(value, name=name)
        self.queue_id = queue_id
        self._closed = False  # under the guard

    def __repr__(self) -> str:
        return _shown_end("room in", self)

    def _take(self, waiter: Waiter) -> bool:
        if self._closed:
            waiter.error = QueueShutDown(f"{queue_title(self.name)} was shut down")
            waiter.granted = True
            return True
        return super()._take(waiter)

    def _give_back(self, waiter: Waiter) -> None:
        if waiter.error is None:
            super()._give_back(waiter)
        else:
            waiter.left = True

    def take_now(self) -> bool:
        """Take a slot; False if there is certainly none."""
        if self._permits and not self._waiters:
            try:
                del self._permits[0]  # not pop: see WaitQueue._take
            except IndexError:
                pass
            else:
                return True
        taken = False
        try:
            with self._guard:
                if not self._waiters:
                    if not self._permits:
                        self._lay_out()
                    del self._permits[0]
                    taken = True
        except IndexError:
            pass
        except BaseException:
            if taken:
                self.release()
            raise
        return taken

    def take_later(self, waiter: _NoWaiter) -> None:
        """Take one slot for good, as soon as there is one; called again, go on with the same."""
        with self._guard:
            joined = waiter.granted or waiter in self._waiters
        if not joined:
            self._join(waiter)
        self._serve()

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

    def __init__(self, queue_id: int, name: str | None) -> None:
        self._marks: deque[None] = deque()
        self._more = 0  # items counted here instead of by a mark. Under the guard
        super().__init__(self._marks, name=name)
        self.queue_id = queue_id

    def __repr__(self) -> str:
        return _shown_end("work of", self)

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
            finally:
                self._more += len(taken)

    def done(self) -> None:
        """Count one item less. Raises ValueError if there is none."""
        try:
            try:
                self._marks.pop()
            except IndexError:
                self._fetch()
            if self._waiters and not self._marks:  # after the pop: pairs with _join
                self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._serve, ())
            raise

    def _fetch(self) -> None:
        with self._guard:
            self._lay_out()
            try:
                self._marks.pop()
            except IndexError:
                message = (
                    f"{queue_title(self.name)}: task_done() called too many times; call it once "
                    "for each item that was put in"
                )
                raise ValueError(message) from None

    def _lay_out(self) -> None:
        """Turn some of the number into marks. Under the guard."""
        marks = self._marks
        more = min(self._more, MOST // 2)
        added = repeat(None, more)
        marks += added  # no call between the two, after which a signal handler could raise
        self._more -= more

    def take_mark(self) -> None:
        """Count one item less, in one step, as its last; no-op if all were reported done."""
        if not self._marks:
            with self._guard:
                self._lay_out()
        try:
            del self._marks[0]
        except IndexError:
            pass  # it was reported done before it was got

    def _take(self, waiter: Waiter) -> bool:
        waiter.granted = not self._marks and not self._more
        return waiter.granted

    def _give_back(self, waiter: Waiter) -> None:
        """Give back nothing: a wait uses nothing up."""
        waiter.left = True
