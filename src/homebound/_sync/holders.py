"""Records of which task or thread holds a lock, kept while a watch is on.

A lock does not know its holder: recording it would cost every `async with` a fifth of its time.
So each method that acquires or releases a lock has a *watched twin* right behind it, which does the
same and keeps the record. `begin` puts the twins in the place of the plain methods, and `end` puts
the plain methods back. While no watch is on, they cost nothing.

A record is `(holder, scoped, watch)`: the task (a foreign one by weak reference), or the ident of a
thread that acquired the lock outside of any task; whether a `with` acquired it, so that the same
task or thread will release it; and the watch that saw it, because a record of an earlier watch may
be long out of date. Each record is a new object: the same record means the same hold.

The order that keeps a record true: it is removed before the lock is released. It is written after
the lock is acquired, or, for a waiter, before the waiter learns that it was granted. In between
there is no record.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from .._aio.tasks import running_loop, running_task
from .._core.big_lock import shown_thread
from .._core.task import Task
from .._os.guard import new_guard
from .._os.process import AtFork, at_fork
from .waiters import foreign_waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wait_queue import WaitQueue
    from .waiters import Waiter

    Record = tuple[Any, bool, object]

F = TypeVar("F", bound="Callable[..., Any]")

# The plain methods of each class that has watched twins, by name, each with its twin.
twins: dict[type, dict[str, tuple[Any, Any]]] = {}


def watched(plain: F) -> Callable[[F], F]:
    """Declare the decorated method the watched twin of `plain`, a method of the same class."""

    def declare(twin: F) -> F:
        return _Twin(plain, twin)  # type: ignore[return-value]  # __set_name__ replaces it

    return declare


class _Twin(Generic[F]):
    """A twin on its way into its class."""

    def __init__(self, plain: F, twin: F) -> None:
        self._plain = plain
        self._twin = twin

    def __set_name__(self, owner: type, name: str) -> None:
        setattr(owner, name, self._twin)
        twins.setdefault(owner, {})[self._plain.__name__] = (self._plain, self._twin)


class _Watch:
    """The watches that are on. Written under the lock; `current` is None while there is none."""

    lock = new_guard()
    count = 0
    current: object = None


def begin() -> None:
    """Record holders from now on, until `end`. Called from: any thread."""
    with _Watch.lock:
        _Watch.count += 1
        if _Watch.count == 1:
            _Watch.current = object()
            _install(1)


def end() -> None:
    """End the watch that `begin` began; others may go on. Called from: any thread."""
    with _Watch.lock:
        _Watch.count -= 1
        if not _Watch.count:
            _install(0)
            _Watch.current = None
            foreign_waits.clear()


def _install(which: int) -> None:
    """Put the plain methods (0) or their twins (1) in place."""
    for owner, pairs in twins.items():
        for name, pair in pairs.items():
            setattr(owner, name, pair[which])


def _begin_as_child() -> None:
    """End all watches in a forked process: the watching threads do not exist there."""
    _Watch.lock = new_guard()
    _Watch.count = 1
    end()


def holders(queue: WaitQueue, want: Any) -> tuple[Record, ...]:
    """Return the records of what keeps a waiter from `want`; () if they are not all known.

    One of a semaphore's holders has to release it for that, all holders of any other lock.

    Called from: any thread.
    """
    return queue._known_holders(want)


def resolve(name: Any) -> Any:
    """Return the task, or the thread's ident, that a record or waiter names; None: it is gone.

    Called from: any thread.
    """
    return name() if type(name) is ref else name


def describe_holder(holder: Any) -> str:
    """Return the task or thread that a record names, in words. Called from: any thread."""
    each = resolve(holder)
    if each is None:
        return "a task that no longer exists"
    if type(each) is int:
        return f"thread {shown_thread(each)}"
    return f"task {each.get_name()!r}" + (", which has ended" if each.done() else "")


def all_known(records: tuple[Record, ...], count: int) -> bool:
    """Return True if these are `count` records, all made by the current watch."""
    watch = _Watch.current
    if watch is None or len(records) != count:
        return False
    return all(record[2] is watch for record in records)


# For the watched twins.


def record_of_caller(*, scoped: bool) -> Record:
    """Return a record that the running task, or else the calling thread, holds the lock."""
    loop = running_loop()
    task = None if loop is None else running_task(loop)
    if task is None:
        return (_thread.get_ident(), scoped, _Watch.current)
    return (task if type(task) is Task else ref(task), scoped, _Watch.current)


def record_of(waiter: Waiter) -> Record | None:
    """Return a record that a waiter holds the lock; None if it is not known which task waits."""
    return None if waiter.who is None else (waiter.who, False, _Watch.current)


class HolderList:
    """The records of a lock that several may hold. Changed under the lock's guard."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: list[Record] = []

    def known(self) -> tuple[Record, ...]:
        """Return the records, of earlier watches too. Called from: any thread."""
        return tuple(self._records)

    def add(self, record: Record) -> None:
        """Add a record."""
        self._drop_old()
        self._records.append(record)

    def drop(self, holder: Any) -> None:
        """Drop one record of `holder`; all records if it has none.

        Without one, the lock is released for another holder, and it is not known which.
        """
        self._drop_old()
        for index, record in enumerate(self._records):
            if record[0] == holder:
                del self._records[index]
                return
        self._records.clear()

    def replace(self, holder: Any, record: Record) -> None:
        """Put `record` in the place of one of `holder`, if there is one."""
        self._drop_old()
        for index, each in enumerate(self._records):
            if each[0] == holder:
                self._records[index] = record
                return

    def _drop_old(self) -> None:
        watch = _Watch.current
        self._records = [record for record in self._records if record[2] is watch]


class SharedHold:
    """A mixin for a lock that several may hold at a time. The class has the slot `_holders`."""

    __slots__ = ()

    _holders: HolderList  # unset until a watch is on

    def _holder_list(self) -> HolderList:
        """Return the records, for a change. Under the guard."""
        try:
            return self._holders
        except AttributeError:
            self._holders = HolderList()  # type: ignore[misc]  # a slot of the class
            return self._holders

    def _recorded(self) -> tuple[Record, ...]:
        """Return the records, of earlier watches too. Called from: any thread."""
        records = getattr(self, "_holders", None)
        return () if records is None else records.known()


at_fork(AtFork.WATCHES, _begin_as_child)
