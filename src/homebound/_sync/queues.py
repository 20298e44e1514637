"""Queue: a store of items, and the waiters at its two ends.

A put acquires a slot if there is a limit, marks the work as unfinished, pushes the item, and then
looks whether a getter waits. A get takes the next item, and then releases its slot. Where neither
has to wait, these are single operations of deques, and no lock is held.
"""

from __future__ import annotations

import asyncio
import math
from _thread import start_new_thread as start_thread
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._os.arguments import checked_name
from .._os.counts import check_limit
from .._os.no_copy import refuse_copy
from .._os.surely import surely
from .queue_ends import FREED, FREEING, MOST, Getters, QueueShutDown, Slots, Unfinished, queue_title
from .queue_state import ShownQueue
from .store import Fifo, Ordered
from .tokens import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from .waiters import Waiter

T = TypeVar("T")

# How far a put has come: see Queue._put_failed.
UNMARKED, MARKING, PUSHING, PUSHED = range(4)


class Queue(ShownQueue, Generic[T]):
    """asyncio.Queue for tasks of any loop and for threads, all at once.

    `await queue.put(item)` and `await queue.get()` in a task, `put_sync` and `get_sync` in a
    thread. Holds at most `maxsize` items, or any number if it is 0. An item is handed over to the
    getter that has waited longest.

    >>> import homebound
    >>> queue = homebound.Queue()
    >>> async def main(io):
    ...     io.context.call_soon(queue.put_nowait, "item")
    ...     return await queue.get()
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io))
    'item'

    Called from: any thread.
    """

    __slots__ = (
        "__weakref__",
        "_getters_queue",
        "_is_shutdown",  # set once, before the store is closed
        "_marks",
        "_maxsize",
        "_name",
        "_permits",
        "_push",
        "_pushes_in_c",
        "_putting",
        "_queue",  # the items, as subclasses written for asyncio expect
        "_slots",
        "_store",
        "_taken",
        "_unfinished",
        "_waiting",
    )

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # as asyncio's: Queue[int](maxsize=1)

    def __init__(self, maxsize: int = 0, *, name: str | None = None) -> None:
        check_limit("Queue: maxsize", maxsize)
        self._name = None if name is None else checked_name(self, name)
        self._maxsize = maxsize
        self._is_shutdown = False
        self._queue: Any = None
        self._init(maxsize)
        own = type(self)
        self._store: Fifo | Ordered
        items = self._queue
        if own._put is Queue._put and own._get is Queue._get and isinstance(items, Fifo):
            self._store = items
        else:
            self._store = Ordered(items, self._put, self._get)
        # Returns the exception to be raised although the item is in; see Ordered.push.
        self._push: Callable[[Any], BaseException | None] = self._store.push
        self._pushes_in_c = isinstance(self._store, Fifo)
        self._unfinished = Unfinished(id(self), name)
        self._marks = self._unfinished._marks
        # The slots, and the parts of them that each put looks at; None if there is no limit.
        self._slots = Slots(math.ceil(maxsize), id(self), name) if maxsize > 0 else None
        self._getters_queue = Getters(id(self), name, self._store, self._unfinished, self._slots)
        self._waiting = self._getters_queue._waiters
        self._taken = self._getters_queue._taken
        self._permits = None if self._slots is None else self._slots._permits
        self._putting = () if self._slots is None else self._slots._waiters

    def _shutdown_error(self) -> QueueShutDown:
        return QueueShutDown(f"{queue_title(self._name)} was shut down: it takes no more items")

    def _full_error(self) -> asyncio.QueueFull:
        message = f"{queue_title(self._name)} is full: it holds maxsize={self._maxsize} items"
        return asyncio.QueueFull(message)

    # Subclasses written for asyncio override these three to have an order of their own.

    def _init(self, _maxsize: int) -> None:
        self._queue = Fifo()

    def _get(self) -> Any:
        return self._queue.popleft()

    def _put(self, item: Any) -> None:
        self._queue.append(item)

    @property
    def name(self) -> str | None:
        """The name it was given, which repr and dump() show; None without one.

        Called from: any thread.
        """
        return self._name

    @property
    def maxsize(self) -> int:
        """The number of items that it can hold; 0 or less: any number.

        Called from: any thread.
        """
        return self._maxsize

    def qsize(self) -> int:
        """Return the number of items in it.

        Called from: any thread.
        """
        return len(self._queue)

    def empty(self) -> bool:
        """Return True while there is no item in it.

        Called from: any thread.
        """
        return not self._queue

    def full(self) -> bool:
        """Return True while there is no room for an item.

        Called from: any thread.
        """
        return self._slots is not None and not self._slots._value

    # Putting.

    async def put(self, item: T) -> None:  # noqa: C901, PLR0912  (each step of it, inline)
        """Put an item in, waiting until there is room. Raises QueueShutDown after `shutdown`.

        Called from: task.
        """
        if self._is_shutdown:
            raise self._shutdown_error()
        marks = self._marks
        if len(marks) > MOST:
            self._unfinished.stow()
        permits = self._permits
        if permits is not None:
            try:
                if self._putting:
                    raise IndexError  # noqa: TRY301  (it queues behind the waiters)
                del permits[0]  # not pop: see WaitQueue._take
            except IndexError:
                waiter = await self._slots._wait()  # type: ignore[union-attr]
                if waiter.error is not None:
                    raise waiter.error from None
        stage: int  # set where it is needed; from here on as _put_now, without the call
        try:
            try:
                marks.append(None)
            except (MemoryError, RecursionError):
                stage = UNMARKED
                if permits is not None:
                    permits += TOKEN  # no call: there may be no stack for any
                raise
            except BaseException:
                stage = MARKING
                raise
            try:
                late = self._push(item)
            except BaseException:
                stage = PUSHING
                raise
            if self._waiting:
                stage = PUSHED
                self._getters_queue._serve()
        except BaseException as error:
            try:
                self._put_failed(stage, error)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._put_failed, (stage, error))
            if type(error) is ValueError and self._is_shutdown:
                raise self._shutdown_error() from None
            raise
        if late is not None:
            raise late
        if self._is_shutdown:
            self._too_late(item)

    def put_nowait(self, item: T) -> None:
        """Put an item in. Raises asyncio.QueueFull if there is no room, QueueShutDown.

        Called from: any thread.
        """
        if self._is_shutdown:
            raise self._shutdown_error()
        if not self._put_now(item):
            raise self._full_error()

    def put_sync(self, item: T, timeout: float | None = None) -> None:
        """Do `put` in this thread; asyncio.QueueFull if there is no room for `timeout` seconds.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        if self._is_shutdown:
            raise self._shutdown_error()
        if self._put_now(item):
            return
        slots: Any = self._slots
        waiter = slots._wait_sync(timeout)
        if waiter is None:
            raise self._full_error()
        try:
            _raise_error_of(waiter)
            self._put_now(item, waiter)
        except BaseException:
            try:
                slots._leave(waiter)  # no-op once its slot is used
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(slots._leave, (waiter,))
            raise

    def _put_now(self, item: T, waiter: Waiter | None = None) -> bool:
        """Put an item into the slot that `waiter` was granted, or a free one; False if none is."""
        marks = self._marks
        if len(marks) > MOST:
            self._unfinished.stow()
        slots = self._slots
        if waiter is not None:
            waiter.left = True  # the slot is this call's from here on
        elif slots is not None and not slots.take_now():
            return False
        stage = MARKING
        try:
            marks.append(None)  # before the item: its getter may report it done at once
            stage = PUSHING
            late = self._push(item)
            stage = PUSHED
            if self._waiting:  # after the push: pairs with _join
                self._getters_queue._serve()
        except BaseException as error:
            try:
                self._put_failed(stage, error)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._put_failed, (stage, error))
            if type(error) is ValueError and self._is_shutdown:
                raise self._shutdown_error() from None
            raise
        if late is not None:
            raise late
        if self._is_shutdown:  # after the push: pairs with shutdown
            self._too_late(item)
        return True

    def _put_failed(self, stage: int, error: BaseException) -> None:
        """Undo a put that was interrupted, or do the rest of it if the item is in.

        If a signal handler raised, the call before that is done. If a call itself raised, for lack
        of memory or stack, it has done nothing.
        """
        by_itself = isinstance(error, (MemoryError, RecursionError))
        if stage == UNMARKED:
            if self._slots is not None:
                self._slots._serve()
            return
        if stage == PUSHED or (stage == PUSHING and self._pushes_in_c and not by_itself):
            self._getters_queue._serve()
            return
        if stage == PUSHING or not by_itself:
            self._unfinished.done()
        if self._slots is not None:
            self._slots.release()

    def _too_late(self, item: T) -> None:
        """Undo a put during which the queue was shut down, unless a getter has the item."""
        if self._getters_queue.retract(item):
            self._unput()
            raise self._shutdown_error()

    def _unput(self) -> None:
        self._unfinished.done()
        if self._slots is not None:
            self._slots.release()

    # Getting.

    async def get(self) -> T:  # noqa: C901  (each step of it, inline)
        """Take the next item out, waiting for one. Raises QueueShutDown if none will come.

        Called from: task.
        """
        getters = self._getters_queue
        item: T
        if self._queue and not self._waiting:
            try:
                for item in self._taken:  # noqa: B007  (returned below)
                    break
            except IndexError:
                pass  # another getter has taken the last one
            else:
                permits = self._permits
                if permits is not None:
                    stage = FREEING
                    try:
                        permits.append(None)
                        if self._putting:  # after the append: pairs with _join
                            stage = FREED
                            self._slots._serve()  # type: ignore[union-attr]
                    except BaseException as error:
                        taken = [item, stage, error]
                        try:
                            getters._undo(taken)
                        except BaseException:  # noqa: BLE001  (surely.py)
                            start_thread(getters._undo, (taken,))
                        raise
                return item
        waiter = await getters._wait()
        try:
            item = getters.unpack(waiter)
        except BaseException:
            try:
                getters.refuse(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(getters.refuse, (waiter,))
            raise
        return item

    def get_nowait(self) -> T:
        """Take the next item out. Raises asyncio.QueueEmpty if there is none, QueueShutDown.

        Called from: any thread.
        """
        item: T
        getters = self._getters_queue
        if self._queue and not self._waiting:
            try:
                for item in self._taken:  # noqa: B007  (returned below)
                    break
            except IndexError:
                pass
            else:  # as in `get`
                permits = self._permits
                if permits is not None:
                    stage = FREEING
                    try:
                        permits.append(None)
                        if self._putting:  # after the append: pairs with _join
                            stage = FREED
                            self._slots._serve()  # type: ignore[union-attr]
                    except BaseException as error:
                        taken = [item, stage, error]
                        try:
                            getters._undo(taken)
                        except BaseException:  # noqa: BLE001  (surely.py)
                            start_thread(getters._undo, (taken,))
                        raise
                return item
        item = getters.get_now()
        return item

    def get_sync(self, timeout: float | None = None) -> T:
        """Do `get` in this thread; asyncio.QueueEmpty if no item comes for `timeout` seconds.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        getters = self._getters_queue
        waiter = getters._wait_sync(timeout)
        if waiter is None:
            message = f"{queue_title(self._name)} is empty: no item came in {timeout} s"
            raise asyncio.QueueEmpty(message)
        try:
            item: T = getters.unpack(waiter)
        except BaseException:
            try:
                getters.refuse(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(getters.refuse, (waiter,))
            raise
        return item

    # Finishing.

    def task_done(self) -> None:
        """Report one item done. Raises ValueError if called more often than items were put.

        Called from: any thread.
        """
        self._unfinished.done()

    async def join(self) -> None:
        """Wait until every item put has been reported done by `task_done`.

        Called from: task.
        """
        if self._unfinished:
            await self._unfinished._wait()

    def join_sync(self, timeout: float | None = None) -> bool:
        """Do `join` in this thread, at most `timeout` seconds; True if all is done.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return not self._unfinished or self._unfinished._wait_sync(timeout) is not None

    def shutdown(self, immediate: bool = False) -> None:  # noqa: FBT001, FBT002  (asyncio's)
        """Reject further items; puts, and gets that find the queue empty, raise QueueShutDown.

        Waiting ones do too. The items left can still be got; with `immediate` they are dropped, and
        count as done.

        Called from: any thread.
        """
        surely(self._shut, immediate)

    def _shut(self, immediate: bool) -> None:  # noqa: FBT001  (shutdown's)
        self._is_shutdown = True
        self._store.close()  # after the mark: pairs with _put_now
        if self._slots is not None:
            self._slots.close()
        if immediate:
            self._getters_queue.drop_all()
        self._getters_queue.close()

    __reduce__ = refuse_copy


def _raise_error_of(waiter: Waiter) -> None:
    if waiter.error is not None:
        raise waiter.error
