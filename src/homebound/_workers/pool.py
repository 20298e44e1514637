"""WorkerPool: an Executor that starts threads when needed. threads.py has the threads."""

from __future__ import annotations

import _thread
import concurrent.futures
import contextlib
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakSet

from .._aio.futures import set_unless_done
from .._core.big_lock import big_lock_released
from .._core.coroutines import check_call
from .._core.current import here
from .._core.left_over import threads_left_over
from .._core.loop import Loop
from .._core.loop_context import LoopContext
from .._os.arguments import checked_name
from .._os.clock import Deadline
from .._os.counts import check_count
from .._os.greenlets import refuse_green_threads
from .._os.no_copy import refuse_threaded_copy
from .._os.process import AtExit, AtFork, at_exit, at_fork
from .._os.snapshot import members
from .._threads.wait_while import Waiting, turn_while
from .jobs import FutureJob
from .threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext


P = ParamSpec("P")
T = TypeVar("T")

_numbers = count()
_pools: WeakSet[WorkerPool] = WeakSet()


class WorkerPool(WorkerThreads, concurrent.futures.Executor):
    """Threads for blocking calls, started when needed, up to `max_threads`.

    `min_threads` of them stay when idle; the others end after `idle_timeout` seconds without work.
    Jobs start in the order of their submission. A WorkerPool is a `concurrent.futures.Executor` and
    can be passed wherever a library takes one. Raises ValueError for limits that contradict each
    other.

    >>> import homebound
    >>> with homebound.WorkerPool(max_threads=4, name="disk") as pool:
    ...     pool.submit(sum, [1, 2, 3]).result()
    6

    Called from: any thread.
    """

    def __init__(
        self,
        max_threads: int = 64,
        *,
        min_threads: int = 0,
        idle_timeout: float = 10.0,
        name: str | None = None,
    ) -> None:
        check_count("WorkerPool: max_threads", max_threads, 1)
        check_count("WorkerPool: min_threads", min_threads, 0)
        if min_threads > max_threads:
            message = (
                f"WorkerPool: min_threads is {min_threads}; it must be at most {max_threads}, "
                "which is max_threads"
            )
            raise ValueError(message)
        if not idle_timeout >= 0:
            message = f"WorkerPool: idle_timeout is {idle_timeout}; it must be 0 or more seconds"
            raise ValueError(message)
        refuse_green_threads("WorkerPool", only_if_late=True)
        called = checked_name(self, name) if name else f"workers{next(_numbers)}"
        super().__init__(called, min_threads, max_threads, idle_timeout)
        # How long the interpreter's exit waits for the workers; None: for as long as they need.
        self._patience: float | None = None
        _pools.add(self)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Call `fn(*args, **kwargs)` in a worker, in a copy of the caller's contextvars.

        Raises RuntimeError after `shutdown`, and if there is no worker and no thread can be
        started; TypeError if `fn` is an `async def` or cannot be called. If the worker dies, out of
        memory for example, the future raises BrokenExecutor.

        Called from: any thread.
        """
        check_call("WorkerPool.submit", fn)
        job = FutureJob(partial(copy_context().run, fn, *args, **kwargs))
        self._put(job)
        return job.future

    # Ending.

    def shutdown(
        self,
        wait: bool = True,  # noqa: FBT001, FBT002  (as in concurrent.futures)
        *,
        cancel_futures: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Refuse new jobs. Queued jobs are still done, or cancelled with `cancel_futures`.

        With `wait`, return when the last worker has ended. Called at home, it keeps the home's loop
        running meanwhile, as `block_on` does; the big lock is free. After `timeout` seconds it
        raises TimeoutError, which says what the workers do, with stacks. They go on; the
        interpreter's exit waits for them for another `timeout` seconds and then abandons them.

        Called from: any thread.
        """
        self._shut_down = True
        while cancel_futures and self._jobs:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            job.drop()
        for thread in self._threads.copy():  # after that: one that begins later looks
            parker = thread.parker
            if parker is not None:  # else it has not begun, and looks before it sleeps
                parker.unpark()
        self._remove_dead()
        if not wait:
            return
        self._displace(_thread.get_ident())  # a finaliser must not wait for what it interrupts
        try:
            self._join(Deadline(timeout))
        except TimeoutError:
            self._bound_exit(timeout)  # as long once more
            doing = threads_left_over(self._threads.copy())
            message = f"{self!r} has not ended after {timeout} s:{doing}"
            raise TimeoutError(message) from None

    def _join(self, deadline: Deadline) -> None:
        """Wait for the workers. Their jobs may need the calling home, or the big lock."""
        context = here.seat.home
        if isinstance(context, LoopContext) and self._threads:
            self._when_empty.append(context.notify)
            self._tell_if_empty()
            what = ("WorkerPool.shutdown", self)
            turn_while(what, lambda: self._threads, context, deadline.timeout())
        with Waiting("WorkerPool.shutdown", self), big_lock_released():
            while True:  # again: a dying worker may have started another
                left = self._not_ended()
                if not left:
                    break
                for thread in left:
                    if self._bury(thread, deadline.timeout()):
                        continue
                    raise TimeoutError  # last: the jump rule

    async def _end(self, context: AioContext) -> None:
        """Shut down and wait for it as a task, without blocking the context's home."""
        ended = context.loop.create_future()
        self.shutdown(wait=False)
        if self._threads:
            # Unless done: Ctrl-C during the wait cancels it.
            self._when_empty.append(partial(context.call_soon, set_unless_done, ended))
            self._tell_if_empty()
            await ended
        for thread in self._not_ended():  # they have reported and end within microseconds
            self._bury(thread)

    def _bound_exit(self, patience: float | None) -> None:
        """Bound the time that the interpreter's exit waits for the workers; None: no bound."""
        self._patience = patience

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        state = "shut down, " if self._shut_down else ""
        return (
            f"<WorkerPool {self.name!r} {state}{len(self._threads)} threads, "
            f"{len(self._idle)} idle, {len(self._jobs)} jobs waiting>"
        )


Loop.thread_pools = (WorkerPool,)


def _end_all() -> None:
    """Finish the jobs in flight before the interpreter ends."""
    for pool in every_pool():
        with contextlib.suppress(TimeoutError):  # the caller that set the limit was told
            pool.shutdown(timeout=pool._patience)


def every_pool() -> list[WorkerPool]:
    """Return all pools, whatever other threads create or drop meanwhile."""
    return members(_pools)


def _begin_as_child() -> None:
    """Forget the parent's workers in a forked process, and make its pools as they were at first."""
    for pool in tuple(_pools):
        pool._begin_as_child()


at_exit(AtExit.WORKERS, _end_all)
at_fork(AtFork.WORKERS, _begin_as_child)
