"""Where a queue's items lie. Putting and taking one is atomic, so a queue needs no lock for it.

`close` and `push` make one thing of "is it shut down" and "put it in": once `close` has returned,
nothing comes in any more.
"""

from __future__ import annotations

import _thread
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Parcel:
    """An item on its way to a getter. Of its own, so that a queue keeps no waiting task alive."""

    __slots__ = ("item",)

    item: Any  # see Getters


class Fifo(deque[Any]):
    """A deque: append, popleft and appendleft are C calls, atomic by its own lock or by the GIL."""

    __slots__ = ()

    push = deque.append
    pop_next = deque.popleft

    def put_back(self, item: Any, later: Iterable[Parcel]) -> None:
        """Who was handed it has left: those behind him pass on what they have, the last to us.

        Nothing of theirs lies in here meanwhile, where somebody might take it.
        """
        for parcel in later:
            parcel.item, item = item, parcel.item
        self.appendleft(item)

    def close(self) -> None:
        """The shut-down mark is up: who pushes from now on sees it after his push.

        Pairs with Queue._put_now: push, look at the mark, `retract`.
        """
        self.rotate(0)

    def retract(self, item: Any) -> bool:
        """Take out what was pushed after `close`; False if somebody has it."""
        behind: list[Any] = []
        found = False
        try:
            while not found:
                last = self.pop()
                found = last is item
                if not found:
                    behind.append(last)
        except IndexError:
            pass
        self.extend(reversed(behind))
        return found


class Ordered:
    """A queue that keeps its own order, through its `_put` and `_get`: one at a time."""

    __slots__ = ("_busy", "_closed", "_get", "_items", "_lock", "_nested", "_put")

    def __init__(self, items: Any, put: Callable[[Any], None], get: Callable[[], Any]) -> None:
        self._items = items
        self._put = put
        self._get = get
        self._closed = False  # under the lock
        self._lock = _thread.RLock()  # held for one `_put` or `_get`
        # A finaliser may come in amidst that, on the same queue: what it puts lies here until the
        # operation that it interrupts is done, and it finds the queue empty.
        self._busy = False
        self._nested: deque[Any] = deque()

    def push(self, item: Any) -> None:
        """Put it in; raises ValueError if closed."""
        with self._lock:
            if self._closed:
                raise ValueError
            if self._busy:
                self._nested.append(item)
                return
            self._busy = True
            try:
                self._put(item)
            finally:
                self._busy = False
            if self._nested:
                self._put_nested()

    def _put_nested(self) -> None:
        """Put in what finalisers have put meanwhile; those that come now do so themselves."""
        while self._nested:
            self.push(self._nested.popleft())

    def put_back(self, item: Any, later: Iterable[Parcel]) -> None:
        """Who was handed it has left: those behind him choose again."""
        with self._lock:
            self._put(item)
            for parcel in later:
                self._put(parcel.item)
                parcel.item = self._get()

    def pop_next(self) -> Any:
        """Take the next one out; raises IndexError if there is none."""
        with self._lock:
            if self._busy or not self._items:
                raise IndexError
            self._busy = True
            try:
                item = self._get()
            finally:
                self._busy = False
            if self._nested:
                self._put_nested()
            return item

    def rotate(self, _: int) -> None:
        """Pass through the lock."""
        with self._lock:
            pass

    def close(self) -> None:
        """Let nothing in any more."""
        with self._lock:
            self._closed = True

    def retract(self, _item: Any) -> bool:
        """Nothing gets in once it is closed, so there is nothing to retract."""
        return False

    def __len__(self) -> int:
        return len(self._items)
