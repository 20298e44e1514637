"""asyncio's futures, with the private parts needed to await them from several threads."""

from __future__ import annotations

import asyncio
import sys
from _asyncio import Future
from asyncio import futures
from typing import TYPE_CHECKING, Any, TypeVar

from .._os.arguments import refuses_timeout
from .tasks import always_awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

CFuture = Future  # asyncio.Future, unless nest_asyncio has replaced that by the pure Python one

# Makes an instance of a subclass, without calling its __init__.
new_future: Callable[[type[Any]], Any] = CFuture.__new__

# Returns a future's loop, also where the future has no get_loop().
loop_of: Callable[[Any], Any] = futures._get_loop  # type: ignore[attr-defined]

# Returns whether the GIL is on: where it is off at first, an extension module can turn it on later.
has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)


def _waits_for_nothing(method: str) -> TypeError:
    """Return the error for a timeout, as a future of concurrent.futures takes it."""
    return TypeError(
        f"Task.{method}() takes no timeout and does not wait: block_on(task, timeout=5) does, in a "
        "coroutine `await` in `async with asyncio.timeout(5):`"
    )


def set_unless_done(future: asyncio.Future[T], result: T = None) -> None:  # type: ignore[assignment]
    """Complete a future, unless it was cancelled or completed before.

    Called from: the thread of its loop.
    """
    if not future.done():
        future.set_result(result)


# Since 3.14 asyncio's futures remember which tasks await them, for call graphs.
RECORDS_AWAITS = sys.version_info >= (3, 14)

if not RECORDS_AWAITS:

    def begins_wait(yielded: Any, task: Any) -> bool | None:  # noqa: ARG001  (for 3.14)
        """Return True if a coroutine yielded a future to await, False for a future yielded bare.

        None if it yielded no future. (asyncio tells them apart by `_asyncio_future_blocking`.)
        """
        blocking: bool | None = getattr(yielded, "_asyncio_future_blocking", None)
        if blocking:
            yielded._asyncio_future_blocking = False
        return blocking

else:
    _record: Callable[[Any, Any], None] = asyncio.future_add_to_awaited_by  # type: ignore[attr-defined]
    forget_await: Callable[[Any, Any], None] = asyncio.future_discard_from_awaited_by  # type: ignore[attr-defined]
    _recorded: Callable[[Any], Any] = asyncio.Future._asyncio_awaited_by.__get__  # type: ignore[attr-defined]

    def begins_wait(yielded: Any, task: Any) -> bool | None:
        """Do as above, and have the awaited future remember the task until `forget_await`."""
        blocking: bool | None = getattr(yielded, "_asyncio_future_blocking", None)
        if blocking:
            yielded._asyncio_future_blocking = False
            _record(yielded, task)
        return blocking

    def record_child(child: Any, parent: Any) -> None:
        """Have an asyncio task show `parent` as its awaiter until it is done."""
        _record(child, parent)
        child.add_done_callback(lambda _: forget_await(child, parent))


def ask_in_vain(future: Any) -> None:
    """Read a future's outcome and drop it, so that asyncio does not log it as never retrieved.

    asyncio's tasks read it whenever they are woken, even if a cancellation has come in between and
    is what they raise.
    """
    if future.done() and not future.cancelled():
        future.exception()


_result = CFuture.result
_exception = CFuture.exception
_cancel = CFuture.cancel


if TYPE_CHECKING:
    # As `isinstance` says (TaskFuture.__class__): it may be given to all that takes a Task.
    from asyncio import Task as _TaskShape
else:
    _TaskShape = CFuture


class FutureParts(_TaskShape[T]):
    """The C future that Task builds on, with the private parts that a task needs."""

    __slots__ = ("_cancellation",)  # the CancelledError it ended with, until it is first raised

    _cancel_message: Any  # for the next CancelledError; asyncio's cancel() and result() use it
    _source_traceback: Any  # in debug mode, the stack in which it was created; else None

    def _cancel_with(self, message: Any) -> None:
        """Store the message for the next CancelledError."""
        self._cancel_message = message

    def _hide_maker(self, frames: int) -> None:
        """Remove the last `frames` frames from the stack that debug mode shows."""
        del self._source_traceback[-frames:]

    def _cancelled_error(self) -> asyncio.CancelledError:
        error: asyncio.CancelledError = self._make_cancelled_error()
        return error

    def _end_cancelled(self, error: asyncio.CancelledError) -> None:
        """Become cancelled by `error`."""
        self._cancellation: asyncio.CancelledError | None = error
        _cancel(self, error.args[0] if error.args else None)

    def _make_cancelled_error(self) -> asyncio.CancelledError:
        """Return the error it ended with, for its traceback; later, as asyncio does, copies."""
        error: asyncio.CancelledError | None = getattr(self, "_cancellation", None)
        if error is None:
            error = super()._make_cancelled_error()  # type: ignore[misc]
        else:
            self._cancellation = None
        return error

    def _mark_retrieved(self) -> None:
        self._log_traceback = False

    _asyncio_future_blocking = always_awaited

    if RECORDS_AWAITS:

        @property
        def _asyncio_awaited_by(self) -> frozenset[Any] | None:
            """The tasks that await this one: homebound's, and those that asyncio has recorded.

            asyncio records its own tasks and the callers of gather, wait, shield and TaskGroup.
            """
            return frozenset(self._awaiters().union(_recorded(self) or ())) or None

    def _awaiters(self) -> set[Any]:
        """Return the tasks that await this one and that asyncio has not recorded."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            yield self
            if not self.done():
                message = "await wasn't used with future"
                raise RuntimeError(message)
        try:
            try:
                return _result(self)
            except asyncio.CancelledError:
                pass  # raised below, so that the two errors are not chained
            raise self._make_cancelled_error()
        finally:
            del self  # a cycle otherwise: the error's traceback holds this frame

    if not TYPE_CHECKING:  # typed by the base
        __iter__ = __await__

    def _not_done(self) -> asyncio.InvalidStateError:
        return asyncio.InvalidStateError(
            f"task {self.get_name()!r} is not done yet: `await` it in a coroutine; in a function, "
            "or in another thread, block_on(task) waits for it and returns its result"
        )

    @refuses_timeout
    def result(self, timeout: None = None) -> T:
        """Return the coroutine's result, or raise its exception. See asyncio.Future.result.

        Called from: any thread.
        """
        if timeout is not None:
            raise _waits_for_nothing("result")
        try:
            try:
                return _result(self)
            except asyncio.CancelledError:
                pass
            except asyncio.InvalidStateError:
                raise self._not_done() from None
            raise self._make_cancelled_error()
        finally:
            del self

    @refuses_timeout
    def exception(self, timeout: None = None) -> BaseException | None:
        """Return the coroutine's exception or None; raise CancelledError if it was cancelled.

        See asyncio.Future.exception.

        Called from: any thread.
        """
        if timeout is not None:
            raise _waits_for_nothing("exception")
        try:
            try:
                return _exception(self)
            except asyncio.CancelledError:
                pass
            except asyncio.InvalidStateError:
                raise self._not_done() from None
            raise self._make_cancelled_error()
        finally:
            del self


class SharedFuture(CFuture[Any]):
    """A future that several threads may begin to await at the same moment: its flag stays up.

    It has asyncio's name and repr. A future that is yielded bare, never awaited, is still found.
    """

    __slots__ = ("_awaited",)  # True from the first await on, else unset. Any thread

    _asyncio_future_blocking = property(
        lambda self: getattr(self, "_awaited", False), lambda _self, _value: None
    )

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            self._awaited = True
            yield self
            if not self.done():
                message = "await wasn't used with future"
                raise RuntimeError(message)
        try:
            return _result(self)
        finally:
            del self  # as in FutureParts

    __iter__ = __await__


SharedFuture.__name__ = SharedFuture.__qualname__ = "Future"

# With a GIL, threads overwrite each other's flag only if they switch between two given bytecodes,
# and __await__ in Python makes an await a tenth slower. Without a GIL they do so in 2 of 100 awaits
# that begin together, and __await__ costs 5 %.
LoopFuture: type[asyncio.Future[Any]] = CFuture if has_gil() else SharedFuture
