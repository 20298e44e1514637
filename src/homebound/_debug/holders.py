"""Who has taken which lock. Known while somebody watches, and only of what is taken meanwhile.

A lock does not know its holder: writing it down would cost every `async with` a fifth of its time.
So while somebody watches, the methods of the locks are replaced by those below, which do the same
and write it down. While nobody does, it costs nothing.

A record is `(who, scoped, watch)`: a task (one that is not ours by weak reference) or the ident of
a thread that took it outside of a task; whether by `with`, so that it is the same who releases it;
and the watch that saw it, for those of an earlier one may be of long ago. Each is a new object: the
same record means the same hold.

The order that makes a record true: it is removed before the lock is let go, and written after the
lock is taken, or, for a waiter, before it learns that it was granted. In between there is none.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any
from weakref import ref

from .._aio.tasks import running_loop, running_task
from .._core.task import Task
from .._os.process import AtFork, at_fork
from .._sync.lock import Lock
from .._sync.rw_lock import READ, RWLock, Side
from .._sync.semaphore import Semaphore
from .._sync.wait_queue import DONE, WaitQueue
from .._sync.waiters import FutureWaiter

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._sync.waiters import Waiter

    Record = tuple[Any, bool, object]

# What a task that is not ours waits in, by the task. Any thread writes, single operations; entries
# that are over are dropped by `tidy`.
elsewhere: dict[Any, FutureWaiter] = {}


class _Watch:
    """Who watches. Under the lock; `current` is read by all, and None while nobody does."""

    lock = _thread.RLock()
    count = 0
    current: object = None


def begin() -> None:
    """Have it written down from now on, until `end`. Called from: any thread."""
    with _Watch.lock:
        _Watch.count += 1
        if _Watch.count == 1:
            _Watch.current = object()
            _put_in_place(_WATCHED)


def end() -> None:
    """The end of what `begin` began; others may watch on. Called from: any thread."""
    with _Watch.lock:
        _Watch.count -= 1
        if not _Watch.count:
            _put_in_place(_PLAIN)
            _Watch.current = None
            elsewhere.clear()


def _put_in_place(methods: dict[type, dict[str, Any]]) -> None:
    for owner, named in methods.items():
        for name, method in named.items():
            setattr(owner, name, method)


def _begin_as_child() -> None:
    """Nobody watches in a forked process: threads do not come along."""
    _Watch.lock = _thread.RLock()
    _Watch.count = 1
    end()


def tidy() -> None:
    """Drop the waits that are over. Called from: a thread that watches."""
    for task, waiter in elsewhere.copy().items():
        if waiter.granted or waiter.left:
            elsewhere.pop(task, None)


def holders(queue: WaitQueue, want: Any) -> tuple[Record, ...]:
    """Who must let go before somebody who wants `want` gets it; () if that is not known.

    Of a semaphore one of them is enough, of others it takes all. Called from: any thread.
    """
    if isinstance(queue, Lock):
        record = getattr(queue, "_holder", None)
        known = () if record is None or not queue.locked() else (record,)
        return known if _all_known(known, 1) else ()
    if isinstance(queue, RWLock):
        known = tuple(getattr(queue, "_holders", ()))
        owners = queue._owners
        if want is READ and owners > 0:
            return ()  # readers keep no reader out
        return known if _all_known(known, abs(owners)) else ()
    if isinstance(queue, Semaphore):
        known = tuple(getattr(queue, "_holders", ()))
        return known if not queue._value and _all_known(known, queue._initial) else ()
    return ()


def person(who: Any) -> Any:
    """The task or the thread's ident that a record or a waiter names; None: a task that is gone.

    Called from: any thread.
    """
    return who() if type(who) is ref else who


def _all_known(records: tuple[Record, ...], count: int) -> bool:
    watch = _Watch.current
    if watch is None or len(records) != count:
        return False
    return all(record[2] is watch for record in records)


# Writing it down.


def _mine(*, scoped: bool) -> Record:
    loop = running_loop()
    task = None if loop is None else running_task(loop)
    if task is None:
        return (_thread.get_ident(), scoped, _Watch.current)
    return (task if type(task) is Task else ref(task), scoped, _Watch.current)


def _of(waiter: Waiter) -> Record | None:
    return None if waiter.who is None else (waiter.who, False, _Watch.current)


class _Queue:
    """For WaitQueue."""

    join = WaitQueue._join
    wait_sync = WaitQueue._wait_sync


def _join(queue: WaitQueue, waiter: Waiter) -> bool:
    if type(waiter) is FutureWaiter:
        task = running_task(waiter.loop)
        if task is not None:
            waiter.who = ref(task)
            elsewhere[task] = waiter
    return _Queue.join(queue, waiter)


def _wait_sync(queue: WaitQueue, timeout: float | None, want: Any = None) -> Waiter | None:
    waiter = _Queue.wait_sync(queue, timeout, want)
    if waiter is None:
        return None
    # In a home it was a task of its own that waited, and took it for us.
    if isinstance(queue, Lock):
        queue._holder = _mine(scoped=False)
    elif isinstance(queue, RWLock):
        with queue._guard:
            _replace(queue, waiter.who, _mine(scoped=False))
    return waiter


# Lock.

_lock_now = Lock._acquire_now
_lock_take = Lock._take
_lock_release = Lock.release


def _enter_lock_async(lock: Lock) -> Awaitable[Any]:
    if not _lock_now(lock):
        return lock._enter_waiting()
    lock._holder = _mine(scoped=True)
    return DONE


async def _enter_lock_waiting(lock: Lock) -> None:
    await lock._wait()
    lock._holder = _mine(scoped=True)


def _enter_lock(lock: Lock) -> None:
    lock.acquire_sync()
    lock._holder = _mine(scoped=True)


def _acquire_lock_now(lock: Lock) -> bool:
    if not _lock_now(lock):
        return False
    lock._holder = _mine(scoped=False)
    return True


def _take_lock(lock: Lock, waiter: Waiter) -> bool:
    if not _lock_take(lock, waiter):
        return False
    lock._holder = _of(waiter)
    return True


def _release_lock(lock: Lock) -> None:
    lock._holder = None
    _lock_release(lock)


def _hand_lock_over(_lock: Lock) -> bool:
    return False  # by way of _take, which writes it down


# RWLock. The list is written under the guard, and holds none who does not have the lock.

_rwlock_take_as = RWLock._take_as
_rwlock_release = RWLock.release


def _known(queue: RWLock | Semaphore) -> list[Record]:
    """The list, with this watch's records alone."""
    records: list[Record] = getattr(queue, "_holders", [])
    queue._holders = [record for record in records if record[2] is _Watch.current]
    return queue._holders


def _take_rwlock_as(lock: RWLock, want: str) -> bool:
    if not _rwlock_take_as(lock, want):
        return False
    _known(lock).append(_mine(scoped=False))
    return True


def _take_rwlock(lock: RWLock, waiter: Waiter) -> bool:
    if not _rwlock_take_as(lock, waiter.want):
        return False
    record = _of(waiter)
    if record is not None:
        _known(lock).append(record)
    return True


def _release_rwlock(lock: RWLock) -> None:
    with lock._guard:
        _drop_mine(lock)
    _rwlock_release(lock)


def _give_rwlock_back(lock: RWLock, waiter: Waiter) -> None:
    with lock._guard:
        _drop(lock, waiter.who)
    _rwlock_release(lock)


def _drop_mine(queue: RWLock | Semaphore) -> None:
    _drop(queue, _mine(scoped=False)[0])


def _drop(queue: RWLock | Semaphore, who: Any) -> None:
    """One of its records; without one, another's was let go, and nothing is known any more."""
    records = _known(queue)
    for index, record in enumerate(records):
        if record[0] == who:
            del records[index]
            return
    records.clear()


def _replace(lock: RWLock, who: Any, record: Record) -> None:
    records = _known(lock)
    for index, each in enumerate(records):
        if each[0] == who:
            records[index] = record
            return


def _mark_scoped(side: Side) -> None:
    lock = side._lock
    mine = _mine(scoped=True)
    with lock._guard:
        _replace(lock, mine[0], mine)


_enter_rwlock_plainly = Side.__enter__


def _enter_rwlock_async(side: Side) -> Awaitable[Any]:
    if not side._lock._acquire_now(side._want):
        return _enter_rwlock_waiting(side)
    _mark_scoped(side)
    return DONE


async def _enter_rwlock_waiting(side: Side) -> None:
    await side._lock._wait(side._want)
    _mark_scoped(side)


def _enter_rwlock(side: Side) -> None:
    _enter_rwlock_plainly(side)
    _mark_scoped(side)


# Semaphore. Anybody may release one, so only those who use it with `with` are written down.

_exit_semaphore_plainly = Semaphore.__exit__


def _add_mine(semaphore: Semaphore) -> None:
    with semaphore._guard:
        _known(semaphore).append(_mine(scoped=True))


def _enter_semaphore_async(semaphore: Semaphore) -> Awaitable[Any]:
    if not semaphore._acquire_now():
        return semaphore._enter_waiting()
    _add_mine(semaphore)
    return DONE


async def _enter_semaphore_waiting(semaphore: Semaphore) -> None:
    await semaphore._wait()
    _add_mine(semaphore)


def _enter_semaphore(semaphore: Semaphore) -> None:
    semaphore.acquire_sync()
    _add_mine(semaphore)


def _exit_semaphore(semaphore: Semaphore, *_error: object) -> None:
    with semaphore._guard:
        _drop_mine(semaphore)
    _exit_semaphore_plainly(semaphore)


def _exit_semaphore_async(semaphore: Semaphore, *_error: object) -> Awaitable[None]:
    _exit_semaphore(semaphore)
    return DONE


_WATCHED: dict[type, dict[str, Any]] = {
    WaitQueue: {"_join": _join, "_wait_sync": _wait_sync},
    Lock: {
        "__aenter__": _enter_lock_async,
        "__enter__": _enter_lock,
        "_acquire_now": _acquire_lock_now,
        "_enter_waiting": _enter_lock_waiting,
        "_hand_over": _hand_lock_over,
        "_take": _take_lock,
        "release": _release_lock,
    },
    RWLock: {
        "_give_back": _give_rwlock_back,
        "_take": _take_rwlock,
        "_take_as": _take_rwlock_as,
        "release": _release_rwlock,
    },
    Side: {"__aenter__": _enter_rwlock_async, "__enter__": _enter_rwlock},
    Semaphore: {
        "__aenter__": _enter_semaphore_async,
        "__aexit__": _exit_semaphore_async,
        "__enter__": _enter_semaphore,
        "__exit__": _exit_semaphore,
        "_enter_waiting": _enter_semaphore_waiting,
    },
}
_PLAIN: dict[type, dict[str, Any]] = {
    owner: {name: owner.__dict__[name] for name in named} for owner, named in _WATCHED.items()
}
at_fork(AtFork.WATCHES, _begin_as_child)
