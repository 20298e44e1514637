"""Jobs of a worker: a call whose result a task waits for, or that completes a future."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from .._threads.wait_while import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.cell import Waker


class Job:
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
        waker = None
        try:
            waker = self.wakers.pop()
            waker.wake()
        except IndexError:
            pass  # the task runs, and is about to look at `done`
        except BaseException:  # the worker dies, and its pool calls `fail`
            if waker is not None:
                self.wakers.append(waker)
            raise

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
        self._wake()

    def abandoned(self) -> None:
        """Do nothing: the job goes on when the home of the waiting task has ended."""


class Outcome(concurrent.futures.Future[Any]):
    """The future of a submitted job. A thread that waits for it is seen by `dump`."""

    worker: int | None = None  # the ident of the thread that does the job, written by it

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
        self._begun = False  # written by the worker
        self.future = Outcome()

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
            if self._begun or self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # it is complete already, or cancelled
