"""What a worker does: a call for a task that waits for it, or for a future."""

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
        # At most one: of the suspension that the task is in, or about to be in. It appends, the
        # worker pops, and so does the task in `rearm`: who pops it has it to himself.
        self.wakers: list[Waker] = [waker]
        self.worker: int | None = None  # the ident of the thread that does it, for who looks on

    def work(self) -> None:
        """Do it. Called from: a worker."""
        self.worker = _thread.get_ident()
        try:
            self.result = self._vars.run(self.fn, *self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001  (raised again in the task)
            self.error = error
        self._wake()
        del self  # the traceback of an error holds this frame, and we hold the error

    def _wake(self) -> None:
        self.done = True
        waker = None
        try:
            waker = self.wakers.pop()
            waker.wake()
        except IndexError:
            pass  # the task runs, and is about to look
        except BaseException:  # the worker dies: `fail` tells of it
            if waker is not None:
                self.wakers.append(waker)
            raise

    def rearm(self, waker: Waker) -> bool:
        """The task was woken by another, and is about to suspend again: True if it must.

        It must not if it would not be woken: it is done, and the wake-up was for the suspension
        before. It must if the worker has this waker, even if it is done: the wake-up is on its way.
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
        """It will not be done: the pool shuts down."""
        self.fail(asyncio.CancelledError("the worker pool was shut down"))

    def fail(self, error: BaseException) -> None:
        """Nobody will do it, or go on with it. If it was done, tell of that once more."""
        if not self.done:
            self.error = error
        self._wake()

    def abandoned(self) -> None:
        """The home of the task that waits has ended: the job is done all the same."""


class Outcome(concurrent.futures.Future[Any]):
    """What a job submitted will come to. Who waits for it shows that he does."""

    worker: int | None = None  # the ident of the thread that does it, written by that

    def result(self, timeout: float | None = None) -> Any:
        """As concurrent.futures has it."""
        try:
            if self.done():
                return super().result(timeout)
            with Waiting("Future.result", self, timed=timeout is not None):
                return super().result(timeout)
        finally:
            del self  # the error's traceback leads to this frame, and we have the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As concurrent.futures has it."""
        try:
            if self.done():
                return super().exception(timeout)
            with Waiting("Future.exception", self, timed=timeout is not None):
                return super().exception(timeout)
        finally:
            del self  # the error's traceback leads to this frame, and we have the error


class FutureJob:
    """A blocking call for a concurrent.futures.Future."""

    __slots__ = ("_begun", "_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._begun = False  # written by the worker
        self.future = Outcome()

    def work(self) -> None:
        """Do it. Called from: a worker."""
        self._begun = True
        if not self.future.set_running_or_notify_cancel():
            return
        self.future.worker = _thread.get_ident()
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001  (it is the future's)
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
        del self  # as in Job.work

    def drop(self) -> None:
        """It will not be done."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Nobody will do it, or go on with it."""
        try:
            if self._begun or self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # it has its outcome, or was cancelled
