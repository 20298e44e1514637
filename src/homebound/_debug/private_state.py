"""The private state of other rooms that `_debug` reads; no other file in here touches any.

It is read without stopping anything, so each function takes what it finds in one operation, or by a
snapshot, and its result may be out of date when it is used. Functions are called from any thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.big_lock import big_lock
from .._core.left_over import every_task
from .._core.task import Task
from .._os.snapshot import snapshot
from .._sync.wait_queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.context import AioContext
    from .._core.current import Seat
    from .._core.mailbox import Entry
    from .._sync.waiters import Waiter
    from .._threads.io_thread import IOThread
    from .._workers.jobs import TaskJob
    from .._workers.pool import WorkerPool

_PLAIN_FUTURE = (asyncio.Future, type(None))
_IN_TASK = WaitQueue._wait_in_task.__code__


def big_lock_queue() -> tuple[Seat | None, list[Seat]]:
    """Return the holder of the big lock, or None, and the threads that wait for it, in order."""
    holder, *waiters = snapshot(big_lock._queue) or (None,)
    return holder, waiters


# Contexts.


def home_thread(context: AioContext | None) -> int | None:
    """Return the ident of a context's home thread; None if it has none, or its loop stands.

    A foreign loop does not tell when it stops, and the ident may belong to a new thread by then.
    """
    if context is None or (context._is_guest and not context.loop.is_running()):
        return None
    return context._home_ident


def is_alive(context: AioContext) -> bool:
    """Return True while the home runs its loop; its ident alone may belong to a new thread."""
    return not context._closed and context.loop.is_running()


def is_closed(context: AioContext) -> bool:
    """Return True once the context is closed."""
    return context._closed


def is_asleep(context: AioContext) -> bool:
    """Return True while the home sleeps, or is about to."""
    return bool(context._bell)


class Progress(NamedTuple):
    """The point that a context's home has reached, compared by identity, field by field.

    The count of iterations is the object in the context itself: a large int made anew is another.
    """

    context: AioContext
    ident: int | None
    bell: Any  # a new object for each sleep
    iterations: int


def progress(context: AioContext) -> Progress:
    """Return the point that a context's home has reached now."""
    return Progress(context, context._home_ident, context._bell, context._iterations)


def home_sleeps(context: AioContext) -> bool:
    """Return whether the main context's home sleeps, whether or not a thread stands in for it."""
    return context._stand_in.sleeps_until is not None


def tasks_at(context: AioContext) -> Sequence[Task[Any]]:
    """Return the unfinished tasks at home in a context."""
    return context._tasks()


def plain_tasks_at(context: AioContext) -> list[asyncio.Task[Any]]:
    """Return the unfinished tasks of a context's loop that are not homebound's."""
    if context.loop.is_closed():
        return []
    found = asyncio.all_tasks(context.loop)
    return [task for task in found if not isinstance(task, Task)]


def ready_entries(context: AioContext) -> tuple[Entry, ...]:
    """Return the entries in a context's mailbox."""
    return snapshot(context._ready)


# Tasks.


def wait_of(task: Task[Any]) -> Waiter | TaskJob | None:
    """Return the waiter by which a task waits in a queue, or the job that it waits for, or None."""
    return getattr(task, "_wait", None)


def awaited_by(task: Task[Any]) -> Any:
    """Return the future or task that a task awaits, or None."""
    return task._fut_waiter


def blocked_tasks() -> Iterator[Task[Any]]:
    """Return the unfinished tasks that do not just wait for a plain future, as most do."""
    for task in every_task():
        if type(task._fut_waiter) not in _PLAIN_FUTURE or getattr(task, "_wait", None):
            yield task


def is_to_be_cancelled(task: Task[Any]) -> bool:
    """Return True if a CancelledError will be raised in the task's next step."""
    return task._must_cancel


def is_cleaning_up(task: Task[Any]) -> bool:
    """Return True if a CancelledError was raised in the task, and it goes on."""
    return bool(task._num_cancels_requested) and not task._must_cancel


def is_suspended(task: Task[Any]) -> bool:
    """Return True while the task is suspended."""
    return bool(task._suspended > 0)


# Waiters, threads and pools.


def waits_for_caller(task: object) -> bool:
    """Return whether it is the task in which a `with lock:` that another task entered waits."""
    return isinstance(task, Task) and getattr(task.get_coro(), "cr_code", None) is _IN_TASK


def waiters_of(queue: WaitQueue) -> tuple[Waiter, ...]:
    """Return the waiters of a queue, in order."""
    return snapshot(queue._waiters)


def state_of(queue: WaitQueue) -> str:
    """Return the state of a lock as its repr shows it."""
    return queue._describe()


class Ending(NamedTuple):
    """An I/O thread that is ending, or will be."""

    ident: int
    tasks: Sequence[Task[Any]]  # its tasks that have been cancelled, and clean up


def end_of(thread: IOThread) -> Ending | None:
    """Return the needs of a wait for an I/O thread's end; None if it has ended or not started."""
    ident, context = thread._thread.ident, thread._context
    if ident is None or context is None or thread._ended:
        return None
    tasks = context._tasks() if context._ending else ()  # then each was cancelled once
    return Ending(ident, [task for task in tasks if is_cleaning_up(task)])


def live_workers(pool: WorkerPool) -> list[int]:
    """Return the idents of a pool's workers that have not ended."""
    threads = [thread for thread in pool._threads.copy() if thread.is_alive()]
    return [thread.ident for thread in threads if thread.ident is not None]


def busy_workers(pool: WorkerPool) -> list[int]:
    """Return the idents of a pool's workers if all are busy and it may start no other; else []."""
    threads = tuple(pool._threads.copy())
    if len(threads) < pool._max_threads or pool._idle:
        return []
    return [thread.ident for thread in threads if thread.ident is not None]


def pool_with(job: TaskJob, task: Task[Any]) -> WorkerPool | None:
    """Return the pool in whose queue a task's job stands, or None."""
    pool = None if task.home is None else task.home.workers
    return pool if pool is not None and job in snapshot(pool._jobs) else None
