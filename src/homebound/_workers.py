"""Threads for blocking calls, whose completion wakes the task at its home.

No future, no call_soon_threadsafe: a worker that is done puts the waiting task into the mailbox of
its home. Jobs wait in one deque, idle workers in another, both atomic in each operation; at most
one woken worker is *searching* at a time, and whoever finds a job while there are more wakes the
next before it begins. So a burst of short jobs runs on few threads, and long ones get one each.

The orders that make it lossless: who submits appends the job and then looks whether somebody
searches; a worker that found nothing lists itself as idle, stops searching, and then looks again.

Waking somebody costs more than a brief job, and with the GIL it takes the interpreter away from
whoever works. So while jobs are brief on average, a worker that finds more of them does not send
for help, as long as an idle one *watches*: it looks each millisecond, and if jobs wait and none was
taken meanwhile, the pool takes its jobs to be long again. Nothing waits behind a long job for more
than two looks.
"""

from __future__ import annotations

import _thread
import atexit
import concurrent.futures
import contextlib
import threading
from collections import deque
from contextvars import copy_context
from functools import partial
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from ._biglock import big_lock_let_go
from ._clock import Deadline
from ._current import here
from ._home import LoopContext
from ._jobs import FutureJob
from ._left_over import threads_left_over
from ._loop import Loop
from ._members import members
from ._park import Parker
from ._wait import Waiting, turn_while

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._context import AioContext


T = TypeVar("T")

_numbers = count()
_BRIEF = 20e-6  # seconds: less than it costs to wake somebody
_LONG = 4 * _BRIEF
_TICK = 1e-3  # seconds between two looks of a worker that watches
_QUIET = 16  # looks at which nothing happened, after which it stops watching
_pools: WeakSet[WorkerPool] = WeakSet()


class _Worker(threading.Thread):
    """A worker's thread. It may be joined while somebody is about to start it."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._tried = threading.Event()

    def start(self) -> None:
        try:
            super().start()
        finally:
            self._tried.set()

    def join(self, timeout: float | None = None) -> None:
        self._tried.wait()
        if self.ident is not None:  # else it could not be started
            super().join(timeout)


class WorkerPool(concurrent.futures.Executor):
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
        if idle_timeout < 0:
            message = f"WorkerPool: idle_timeout is {idle_timeout}; it must be 0 or more seconds"
            raise ValueError(message)
        self.name: str = name or f"workers{next(_numbers)}"
        self._limits = (min_threads, max_threads)
        self._idle_timeout = idle_timeout
        self._jobs: deque[Any] = deque()  # any thread appends, workers pop: FIFO
        self._idle: deque[Parker] = deque()  # workers append themselves; the latest is woken first
        self._searching = False  # a woken worker has not found its job yet; any thread
        # How long jobs take, in seconds, and whether that is brief; how many were taken; whether an
        # idle worker watches. Any worker writes them; each is a hint, and _watch makes up for it.
        self._average = _LONG
        self._brief = False
        self._taken = 0
        self._watched = False
        self._shut_down = False  # set once, under _lock
        # Guards the set of threads and its count; never held while a job runs or a thread sleeps.
        self._lock = _thread.allocate_lock()
        self._threads: set[threading.Thread] = set()
        self._number = count()
        self._when_empty: list[
            Callable[[], object]
        ] = []  # under _lock; called by the last to leave
        # Seconds that a shutdown waited in vain: so long, once more, waits the interpreter's exit.
        self._patience: float | None = None
        _pools.add(self)

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Have `fn(*args, **kwargs)` called by a worker, in a copy of the caller's contextvars.

        Raises RuntimeError after `shutdown`.

        Called from: any thread.
        """
        job = FutureJob(partial(copy_context().run, fn, *args, **kwargs))
        self._put(job)
        return job.future

    def _put(self, job: Any) -> None:
        self._jobs.append(job)
        if self._shut_down:
            self._take_out(job)
            message = f"{self!r} was shut down: it takes no more work"
            raise RuntimeError(message)
        if self._searching:  # after the append: pairs with _rest
            return
        if self._brief and self._watched:
            # A worker that is not idle looks again before it rests. It lists itself first: a pass
            # through that list's lock before looking whether one is missing there pairs with it.
            self._idle.rotate(0)
            if len(self._idle) < len(self._threads):
                return
        self._send_one()

    def _take_out(self, job: Any) -> bool:
        """Take a job back; False if a worker has it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def _send_one(self) -> None:
        """Have one more worker look for work."""
        self._searching = True
        try:
            parker = self._idle.pop()
        except IndexError:
            self._hire()
        else:
            parker.unpark()

    def _hire(self) -> None:
        with self._lock:
            if len(self._threads) >= self._limits[1]:
                self._searching = False  # all are at work, and each looks again when it is done
                return
            name = f"{self.name}-{next(self._number)}"
            thread = _Worker(self._work, name)
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._searching = False
            with self._lock:
                self._threads.discard(thread)
                alone = not self._threads
            if alone:
                raise  # nobody is left to do it

    # In a worker.

    def _work(self) -> None:
        parker = Parker()
        jobs = self._jobs
        sent = True  # it is the one that somebody sent, and has not found a job yet
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                if self._rest(parker, sent=sent):
                    sent = True
                    continue
                return
            if sent:
                sent = self._searching = False
            self._taken += 1
            if jobs and not self._searching and not (self._brief and self._watched):
                self._send_one()
            began = perf_counter()
            job.work()
            del job  # an idle worker keeps nothing alive
            # Capped: one job that had to wait for the interpreter does not make all of them long.
            took = min(perf_counter() - began, _LONG)
            self._average += (took - self._average) / 8
            self._brief = self._average < _BRIEF

    def _rest(self, parker: Parker, *, sent: bool) -> bool:
        """Found nothing: sleep until sent. False: leave for good."""
        self._idle.append(parker)
        if sent:
            self._searching = False
        if self._jobs or self._shut_down:  # after listing ourselves: pairs with _put and shutdown
            return not self._leave(parker)
        if self._brief and not self._watched and self._watch(parker):
            return True
        if not parker.park(self._idle_timeout):
            if self._may_leave():
                return not self._leave(parker)
            parker.park()  # still listed: who submits now finds it, and hires nobody
        try:
            # Sent last time as well, just when it had found work by itself: nobody sent it now,
            # so it stands in the list. Left there twice, it would be sent when it has gone.
            self._idle.remove(parker)
        except ValueError:
            pass
        return True

    def _watch(self, parker: Parker) -> bool:
        """Idle while jobs are brief: see that they go on. True: look for work now."""
        self._watched = True
        quiet = 0
        while quiet < _QUIET:
            taken = self._taken
            if parker.park(_TICK):
                break
            if self._taken != taken:
                quiet = 0
            elif self._jobs:  # nobody has taken one since the last look
                self._average = _LONG
                self._brief = False
                break
            else:
                quiet += 1
        self._watched = False
        # Then look: who found us watching, with jobs waiting, has sent nobody (pairs with _work).
        if quiet == _QUIET and not self._jobs:
            return False
        try:
            self._idle.remove(parker)  # unless we were sent
        except ValueError:
            pass
        return True

    def _may_leave(self) -> bool:
        with self._lock:
            return self._shut_down or len(self._threads) > self._limits[0]

    def _leave(self, parker: Parker) -> bool:
        """Give up the rest if nobody has sent us meanwhile; True if this worker is to end."""
        try:
            self._idle.remove(parker)
        except ValueError:
            return False  # sent: there is work
        if self._jobs:
            return False
        with self._lock:
            if not self._shut_down and len(self._threads) <= self._limits[0]:
                return False  # another has left meanwhile
            self._threads.discard(threading.current_thread())
            last = not self._threads
            tell = self._when_empty if last else []
            if last:
                self._when_empty = []
        if self._jobs:  # submitted while we left, and perhaps refused a new thread because of us
            self._send_one()
        for callback in tell:
            callback()
        return True

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
        while self._idle:
            try:
                self._idle.pop().unpark()
            except IndexError:
                break
        if not wait:
            return
        try:
            self._join(threads, Deadline(timeout))
        except TimeoutError:
            self._patience = timeout
            doing = threads_left_over(self._threads.copy())
            message = f"{self!r} has not ended after {timeout} s:{doing}"
            raise TimeoutError(message) from None

    def _join(self, threads: tuple[threading.Thread, ...], deadline: Deadline) -> None:
        """Wait for them. A job may need the home that waits, or the big lock."""
        me = threading.current_thread()
        context = here.home
        if isinstance(context, LoopContext) and threads:
            with self._lock:
                if self._threads:
                    self._when_empty.append(context.notify)
            what = ("WorkerPool.shutdown", self)
            turn_while(what, lambda: self._threads, context, deadline.timeout())
        left = {*threads} - {me}
        with Waiting("WorkerPool.shutdown", self), big_lock_let_go():
            while left:  # again: one that ends with jobs left may have sent for another
                for thread in left:
                    thread.join(deadline.timeout())
                    if thread.is_alive():
                        raise TimeoutError
                with self._lock:
                    left = self._threads - {me}

    async def _end(self, context: AioContext) -> None:
        """Shut down without blocking the context's home."""
        ended = context.loop.create_future()
        self.shutdown(wait=False)
        with self._lock:
            threads = tuple(self._threads)
            if threads:
                self._when_empty.append(partial(context.call_soon, ended.set_result, None))
        if threads:
            await ended
        for thread in threads:
            thread.join()

    def __repr__(self) -> str:
        state = "shut down, " if self._shut_down else ""
        return (
            f"<WorkerPool {self.name!r} {state}{len(self._threads)} threads, "
            f"{len(self._idle)} idle, {len(self._jobs)} jobs waiting>"
        )


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
