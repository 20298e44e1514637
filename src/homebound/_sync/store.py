"""The stores of a queue's items. Putting and taking one is atomic, so a queue needs no lock for it.

`close` and `push` together make one atomic step of "is it shut down?" and "put it in": once `close`
has returned, nothing gets in.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Any

from .._os.guard import new_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_NOTHING = object()


class Parcel:
    """An item on its way to a getter; an object apart, so that a queue keeps no task alive."""

    __slots__ = ("item",)

    item: Any  # see Getters


class Fifo(deque[Any]):
    """A deque: append, popleft and appendleft are C calls, atomic by its own lock or by the GIL."""

    __slots__ = ()

    push = deque.append
    pop_next = deque.popleft

    def taker(self) -> Iterator[Any]:
        """Return an iterator whose steps take the next item out; IndexError if there is none.

        A `for` over it assigns the item to a name with no bytecode in between at which a signal
        handler could raise and so lose the item.
        """
        return starmap(self.popleft, repeat(()))

    def put_back(self, item: Any, later: Sequence[Parcel]) -> BaseException | None:
        """Put back `item`, whose getter has left; each of `later` passes its item on to the next.

        The last item goes to the front of the store. Meanwhile none of them lies in here, where
        another getter might take it. An exception that comes when it is done, as from a signal
        handler, is returned.
        """
        items = [item]
        for parcel in later:
            items += (parcel.item,)
        last = items[-1]
        try:
            self.appendleft(last)
            self._pass_on(later, items)
        except (MemoryError, RecursionError):
            if not (self and self[0] is last):
                raise
            self._pass_on(later, items)
        except BaseException as error:  # noqa: BLE001  (raised by the caller)
            self._pass_on(later, items)
            return error
        return None

    def _pass_on(self, parcels: Sequence[Parcel], items: list[Any]) -> None:
        for parcel, item in zip(parcels, items, strict=False):
            parcel.item = item

    def close(self) -> None:
        """Make sure that each later push sees the shut-down mark, which is set, after its push.

        Pairs with Queue._put_now: push, look at the mark, `retract`.
        """
        self.rotate(0)

    def retract(self, item: Any) -> bool:
        """Take out an item that was pushed after `close`; False if a getter has it."""
        behind: list[Any] = []
        found = False
        try:
            for last in starmap(self.pop, repeat(())):
                found = last is item
                if found:
                    break
                behind += (last,)  # not by a call: a signal handler could raise, and lose it
        except IndexError:
            pass
        finally:
            self.extend(reversed(behind))
        return found


class Ordered:
    """A store with an order of its own, by the queue's `_put` and `_get`, called one at a time."""

    __slots__ = ("_busy", "_closed", "_get", "_items", "_lock", "_nested", "_put")

    def __init__(self, items: Any, put: Callable[[Any], None], get: Callable[[], Any]) -> None:
        self._items = items
        self._put = put
        self._get = get
        self._closed = False  # under the lock
        self._lock = new_guard()  # held for one `_put` or `_get`
        # A finaliser may interrupt that, on the same queue. An item that it puts lies here until
        # the interrupted operation is done; to its `pop_next`, the store is empty.
        self._busy = False
        self._nested: deque[Any] = deque()

    def push(self, item: Any) -> BaseException | None:
        """Put an item in. Raises ValueError if closed.

        An exception that comes once the item is in, as from a signal handler, is returned.
        """
        came = False
        try:
            with self._lock:
                if self._closed:
                    raise ValueError  # noqa: TRY301  (nothing has happened)
                if self._busy:
                    self._nested.append(item)
                    came = True
                    return None
                count = len(self._items)
                self._busy = True
                try:
                    self._put(item)
                except BaseException:
                    self._busy = False
                    came = len(self._items) > count
                    raise
                self._busy = False
                came = True
                if self._nested:
                    self._put_nested()
        except BaseException as error:
            if came:
                return error
            raise
        return None

    def _put_nested(self) -> None:
        """Put in the items of finalisers that came meanwhile; later ones put theirs in directly."""
        while self._nested:
            try:
                item = self._nested.popleft()
            except IndexError:  # one that has come after the look has put it in
                break
            self.push(item)

    def taker(self) -> Iterator[Any]:
        """Return an iterator whose steps take the next item out, as Fifo's."""
        return map(Ordered.pop_next, repeat(self))

    def put_back(self, item: Any, later: Sequence[Parcel]) -> BaseException | None:
        """Put back `item`, whose getter has left; the getters of `later` choose again.

        An exception that comes when it is in, as from a signal handler, is returned.
        """
        late: BaseException | None = None
        count = len(self._items)
        try:
            with self._lock:
                count = len(self._items)
                try:
                    self._put(item)
                except BaseException as error:
                    if len(self._items) == count:
                        raise
                    late = error
                for parcel in later:
                    try:
                        self._put(parcel.item)
                        parcel.item = self._get()
                    except BaseException as error:  # noqa: BLE001  (returned)
                        late = error
                        if len(self._items) == count + 1:
                            self._put(parcel.item)
                        parcel.item = self._get()
        except BaseException as error:
            if len(self._items) == count:
                raise
            return error
        return late

    def pop_next(self) -> Any:
        """Take the next item out. Raises IndexError if there is none."""
        item: Any = _NOTHING
        try:
            with self._lock:
                if self._busy or not self._items:
                    raise IndexError  # noqa: TRY301  (nothing has happened)
                self._busy = True
                try:
                    item = self._get()
                finally:
                    self._busy = False
                if self._nested:
                    self._put_nested()
        except BaseException:
            if item is not _NOTHING:
                self.put_back(item, ())
            raise
        return item

    def rotate(self, _: int) -> None:
        """Pass through the lock."""
        with self._lock:
            pass

    def close(self) -> None:
        """Reject all later items."""
        with self._lock:
            self._closed = True

    def retract(self, _item: Any) -> bool:
        """Return False: nothing gets in once it is closed, so there is nothing to retract."""
        return False

    def __len__(self) -> int:
        return len(self._items)
