"""WorkerPool: an Executor whose threads come when needed; threads.py has these."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from .._core.big_lock import big_lock_let_go
from .._core.current import here
from .._core.left_over import threads_left_over
from .._core.loop import Loop
from .._core.loop_context import LoopContext
from .._os.clock import Deadline
from .._os.greenlets import refuse_green_threads
from .._os.members import members
from .._threads.wait_while import Waiting, turn_while
from .jobs import FutureJob
from .threads import WorkerThreads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._core.context import AioContext


T = TypeVar("T")

_numbers = count()
_pools: WeakSet[WorkerPool] = WeakSet()


class WorkerPool(WorkerThreads, concurrent.futures.Executor):
    """Threads for blocking calls, made when needed up to `max_threads`.

    `min_threads` stay when idle; others leave after `idle_timeout` seconds without work. Jobs
    start in the order of their submission. Any library that takes an Executor takes it. Raises
    ValueError for limits that make no sense.

    >>> import homebound
    >>> with homebound.WorkerPool(max_threads=4, name="disk") as pool:
    ...     pool.submit(sum, [1, 2, 3]).result()
    6

    Called from: any thread.
    """

    def __init__(
        self,
        *,
        min_threads: int = 0,
        max_threads: int = 64,
        idle_timeout: float = 10.0,
        name: str | None = None,
    ) -> None:
        if max_threads < 1 or not 0 <= min_threads <= max_threads:
            message = (
                f"WorkerPool: min_threads={min_threads}, max_threads={max_threads}; "
                "it must be 0 <= min_threads <= max_threads, and max_threads at least 1"
            )
            raise ValueError(message)
        if not idle_timeout >= 0:
            message = f"WorkerPool: idle_timeout is {idle_timeout}; it must be 0 or more seconds"
            raise ValueError(message)
        refuse_green_threads("WorkerPool", only_if_late=True)
        limits = (min_threads, max_threads)
        super().__init__(name or f"workers{next(_numbers)}", limits, idle_timeout)
        # Seconds that a shutdown waited in vain: so long, once more, waits the interpreter's exit.
        self._patience: float | None = None
        _pools.add(self)

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Have `fn(*args, **kwargs)` called by a worker, in a copy of the caller's contextvars.

        Raises RuntimeError after `shutdown`, and if no worker is there and no thread can be
        started. A worker that dies, out of memory for example, has its future raise BrokenExecutor.

        Called from: any thread.
        """
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
        """Take no more work; what is queued is still done, or cancelled with `cancel_futures`.

        With `wait`, returns when the last worker has ended. A home's loop keeps turning meanwhile,
        as in `block_on`, and the big lock is free. After `timeout` seconds: TimeoutError, which
        says what the workers do, with stacks. They go on; the interpreter's exit waits for them for
        `timeout` seconds more, then abandons them.

        Called from: any thread.
        """
        with self._lock:
            self._shut_down = True
            threads = tuple(self._threads)
        while cancel_futures and self._jobs:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            job.drop()
        for thread in threads:
            parker = thread.parker
            if parker is not None:  # else it has not begun, and will look before it sleeps
                parker.unpark()
        if not wait:
            return
        try:
            self._join(Deadline(timeout))
        except TimeoutError:
            self._patience = timeout
            doing = threads_left_over(self._threads.copy())
            message = f"{self!r} has not ended after {timeout} s:{doing}"
            raise TimeoutError(message) from None

    def _join(self, deadline: Deadline) -> None:
        """Wait for the workers. A job may need the home that waits, or the big lock."""
        context = here.home
        if isinstance(context, LoopContext) and self._threads:
            with self._lock:
                if self._threads:
                    self._when_empty.append(context.notify)
            what = ("WorkerPool.shutdown", self)
            turn_while(what, lambda: self._threads, context, deadline.timeout())
        with Waiting("WorkerPool.shutdown", self), big_lock_let_go():
            while left := self._not_ended():  # again: one that dies may have sent for another
                for thread in left:
                    if not self._bury(thread, deadline.timeout()):
                        raise TimeoutError

    async def _end(self, context: AioContext) -> None:
        """Shut down without blocking the context's home."""
        ended = context.loop.create_future()
        self.shutdown(wait=False)
        with self._lock:
            waits = bool(self._threads)
            if waits:
                self._when_empty.append(partial(context.call_soon, _set_ended, ended))
        if waits:
            await ended
        for thread in self._not_ended():  # they have told, and end: a matter of microseconds
            self._bury(thread)

    def _abandon(self) -> None:
        """Have neither the home nor the interpreter's exit wait for the workers any longer."""
        self._patience = 0.0

    def __repr__(self) -> str:
        state = "shut down, " if self._shut_down else ""
        return (
            f"<WorkerPool {self.name!r} {state}{len(self._threads)} threads, "
            f"{len(self._idle)} idle, {len(self._jobs)} jobs waiting>"
        )


def _set_ended(ended: asyncio.Future[None]) -> None:
    if not ended.done():  # cancelled: Ctrl-C while it was waited for
        ended.set_result(None)


Loop.thread_pools = (concurrent.futures.ThreadPoolExecutor, WorkerPool)


@atexit.register
def _end_all() -> None:
    """The interpreter ends: work in flight is finished first."""
    for pool in every_pool():
        with contextlib.suppress(TimeoutError):  # that was said before, to who set the limit
            pool.shutdown(timeout=pool._patience)


def every_pool() -> list[WorkerPool]:
    """All there are, whatever other threads make or drop meanwhile."""
    return members(_pools)
