"""Jobs of a worker: a call whose result a task waits for, or that completes a future.

calls.py has a third kind, whose end a callback passes on.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import sys
import threading
from concurrent.futures._base import FINISHED, LOGGER, PENDING
from contextvars import Context, copy_context
from itertools import repeat, starmap
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Protocol

from .._os.reports import report_and_go_on
from .._os.surely import surely
from .._threads.wait_while import Waiting

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from .._core.cell import Waker


class Job(Protocol):
    """What a worker does. However it ends, the task or thread that waits for it is told."""

    @property
    def done(self) -> bool:
        """True once its outcome is known; those that wait may still have to be told."""

    def work(self) -> None:
        """Do it. Called from: a worker."""

    def drop(self) -> None:
        """End it undone, as the pool shuts down before a worker has taken it."""

    def fail(self, error: BaseException) -> None:
        """End it with an error, as its worker is gone; if it is done, only tell again."""


class TaskJob:
    """A blocking call for a task that waits for it."""

    __slots__ = (
        "_args",
        "_kwargs",
        "_vars",
        "done",
        "error",
        "fn",
        "result",
        "wakers",
        "waking",
        "worker",
    )

    def __init__(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], waker: Waker
    ) -> None:
        self.fn = fn
        self._args = args
        self._kwargs = kwargs
        self._vars: Context = copy_context()
        self.done = False  # written by the worker after the outcome, before it pops a waker
        self.result: Any = None
        self.error: BaseException | None = None
        # At most one: that of the suspension which the task is in, or about to enter. The task
        # appends; the worker pops, and so does the task in `rearm`: the one that pops it owns it.
        self.wakers: list[Waker] = [waker]
        self.waking: Waker | None = None  # perhaps popped, and not woken: `fail` does that
        self.worker: int | None = None  # the ident of the thread that does the job, for `dump`

    def work(self) -> None:
        """Make the call and wake the task. Called from: a worker."""
        self.worker = _thread.get_ident()
        try:
            self.result = self._vars.run(self.fn, *self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001  (raised again in the task)
            self.error = error
        self._wake()
        del self  # a cycle otherwise: the error's traceback refers to this frame

    def _wake(self) -> None:
        self.done = True
        wakers = self.wakers
        try:
            self.waking = wakers[0]  # before the pop: the worker may die after that
            waker = wakers.pop()
        except IndexError:
            self.waking = None
            return  # the task runs, and is about to look at `done`
        waker.wake()

    def rearm(self, waker: Waker) -> bool:
        """Put in the waker of a new suspension, after a wake by another; True: do suspend.

        False if the task would not be woken: the job is done, and its wake-up was for the previous
        suspension. True if the worker has taken this waker, even if the job is done: the wake-up is
        on its way.
        """
        try:
            self.wakers.pop()
        except IndexError:
            return False
        self.wakers.append(waker)  # then look: pairs with _wake
        if not self.done:
            return True
        try:
            self.wakers.pop()
        except IndexError:
            return True
        return False

    def drop(self) -> None:
        """Cancel the job, as the pool shuts down before a worker has taken it."""
        self.fail(asyncio.CancelledError("the worker pool was shut down"))

    def fail(self, error: BaseException) -> None:
        """Complete the job with an error, as its worker is gone; if it is done, only wake again."""
        if not self.done:
            self.error = error
        if self.waking is not None:
            self.waking.wake()
        self._wake()

    def abandoned(self) -> None:
        """Do nothing: the job goes on when the home of the waiting task has ended."""


class _Condition(threading.Condition):
    """A condition that no exception thrown into a thread leaves locked, as threading's may be.

    `with` takes and releases it in one step each: guard.py says why.
    """

    _taken = property(methodcaller("acquire"))
    __exit__: Any = property(attrgetter("_lock.__exit__"))

    if sys.version_info[:2] == (3, 14):

        def __enter__(self) -> bool:
            self._taken  # noqa: B018  (reading it takes the lock)
            return True

    else:
        __enter__: Any = property(attrgetter("_lock.__enter__"))


class Outcome(concurrent.futures.Future[Any]):
    """The future of a submitted job. A thread that waits for it is seen by `dump`."""

    worker: int | None = None  # the ident of the thread that does the job, written by it
    _told = False  # set when all that wait for its result have been told of it

    def __init__(self) -> None:
        # As concurrent.futures does: replacing its condition would be slower. Tests compare them.
        self._condition = _Condition()
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Outcome], object]] = []

    def _invoke_callbacks(self) -> None:
        """Do as concurrent.futures, but call none twice if this was cut short and is repeated."""
        self._told = self._state == FINISHED  # of a cancelled one they are told later
        callbacks = self._done_callbacks
        if not callbacks:
            return
        for callback in starmap(callbacks.pop, repeat((0,), len(callbacks))):
            try:
                callback(self)
            except Exception:  # noqa: BLE001  (reported; the others are called as well)
                LOGGER.exception("exception calling callback for %r", self)

    def tell_again(self) -> None:
        """Tell those that wait for it of its end, as telling them was cut short."""
        if not self._told:  # else `as_completed` may have taken note of it, and would do so twice
            with self._condition:
                waiters = self._waiters.copy()
                self._condition.notify_all()
            for waiter in waiters:
                if self not in waiter.finished_futures:
                    waiter.add_result(self)
        self._invoke_callbacks()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, as concurrent.futures does."""
        try:
            if self.done():
                return super().result(timeout)
            with Waiting("Future.result", self, timed=timeout is not None):
                return super().result(timeout)
        finally:
            del self  # a cycle otherwise: the error's traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception, as concurrent.futures does."""
        try:
            if self.done():
                return super().exception(timeout)
            with Waiting("Future.exception", self, timed=timeout is not None):
                return super().exception(timeout)
        finally:
            del self  # a cycle otherwise: the error's traceback refers to this frame


class FutureJob:
    """A blocking call for a concurrent.futures.Future."""

    __slots__ = ("_begun", "_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._begun = False  # written by the worker, or by what fails it
        self.future = Outcome()

    @property
    def done(self) -> bool:
        return self.future.done()

    def work(self) -> None:
        """Make the call and complete the future. Called from: a worker."""
        self._begun = True
        if not self.future.set_running_or_notify_cancel():
            return
        self.future.worker = _thread.get_ident()
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001  (raised by the future)
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
        del self  # as in Job.work

    def drop(self) -> None:
        """Cancel the future, as the pool shuts down before a worker has taken the job."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Complete the future with an error, as the worker is gone."""
        try:
            begun, self._begun = self._begun, True  # it may be called again
            if begun or self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        except concurrent.futures.InvalidStateError:  # it is complete already, or cancelled
            self.future.tell_again()


def lost_worker(pool: object, error: BaseException) -> concurrent.futures.BrokenExecutor:
    """Return the error of a job that could not be done for lack of a worker."""
    broken = concurrent.futures.BrokenExecutor(f"{pool!r} has lost a worker: {error!r}")
    broken.__cause__ = error
    return broken


def fail_queued(jobs: deque[Job], error: BaseException, *, whose: object) -> None:
    """Fail the jobs that are queued now, as there is no worker and none can be started.

    One whose failure cannot be told is queued again.
    """
    job: Job | None = None
    try:
        for job in starmap(jobs.popleft, repeat((), len(jobs))):
            _fail(job, error, whose)
    except IndexError:
        pass  # a worker has come
    except BaseException:
        if job is not None:
            try:
                _fail(job, error, whose)
            except BaseException:
                jobs.appendleft(job)  # for the next attempt
                raise
        raise


def _fail(job: Job, error: BaseException, whose: object) -> None:
    broken = lost_worker(whose, error)
    try:
        surely(job.fail, broken)
    except BaseException as more:
        if not job.done:
            raise
        report_and_go_on(more, f"a callback of a job that {whose!r} could not do")
