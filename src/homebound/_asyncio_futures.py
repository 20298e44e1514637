"""asyncio's futures, with the private parts that make them fit to be awaited from several threads.

One of the files that know asyncio's private names; see _asyncio_private.py.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import futures
from typing import TYPE_CHECKING, Any

from ._asyncio_tasks import always_awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# A future's loop; of those without get_loop(), too.
loop_of: Callable[[Any], Any] = futures._get_loop  # type: ignore[attr-defined]

# Whether the GIL is on: without it at the start, an extension module can switch it on later.
has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)


def begins_wait(yielded: Any) -> bool | None:
    """What a coroutine yielded: True if a future being awaited, False if a future yielded bare.

    None if no future at all. (`_asyncio_future_blocking` is how asyncio tells them apart.)
    """
    blocking: bool | None = getattr(yielded, "_asyncio_future_blocking", None)
    if blocking:
        yielded._asyncio_future_blocking = False
    return blocking


_result = asyncio.Future.result
_exception = asyncio.Future.exception


class FutureParts(asyncio.Future[Any]):
    """The C future that Task builds on, and those of its private parts that a task needs."""

    __slots__ = ("_cancellation",)  # the CancelledError it ended with, until somebody has had it

    _cancel_message: Any  # for the CancelledError to come; asyncio's cancel() and result() use it
    _source_traceback: Any  # in debug mode, the stack in which it was made; else None

    def _cancel_with(self, message: Any) -> None:
        """Remember the message for the CancelledError to come."""
        self._cancel_message = message

    def _hide_maker(self, frames: int) -> None:
        """Debug mode shows where it was made: take so many frames off the end of that."""
        del self._source_traceback[-frames:]

    def _cancelled_error(self) -> asyncio.CancelledError:
        error: asyncio.CancelledError = self._make_cancelled_error()
        return error

    def _end_cancelled(self, error: asyncio.CancelledError) -> None:
        """Become cancelled by `error`."""
        self._cancellation: asyncio.CancelledError | None = error
        asyncio.Future.cancel(self, error.args[0] if error.args else None)

    def _make_cancelled_error(self) -> asyncio.CancelledError:
        """The error it ended with, for its traceback. Once, as asyncio does it; then copies."""
        error: asyncio.CancelledError | None = getattr(self, "_cancellation", None)
        if error is None:
            error = super()._make_cancelled_error()  # type: ignore[misc]
        else:
            self._cancellation = None
        return error

    def _mark_retrieved(self) -> None:
        self._log_traceback = False

    _asyncio_future_blocking = always_awaited

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            yield self
            if not self.done():
                message = "await wasn't used with future"
                raise RuntimeError(message)
        try:
            try:
                return _result(self)
            except asyncio.CancelledError:
                pass  # raised below, so as not to be shown as the other's context
            raise self._make_cancelled_error()
        finally:
            del self  # the error's traceback holds this frame, and we hold the error

    __iter__ = __await__

    def result(self) -> Any:
        """What its coroutine returned, or raises what that raised. See asyncio.Future.result.

        Called from: any thread.
        """
        try:
            try:
                return _result(self)
            except asyncio.CancelledError:
                pass
            raise self._make_cancelled_error()
        finally:
            del self

    def exception(self) -> BaseException | None:
        """What its coroutine raised; of a cancelled task, raises it. See asyncio.Future.exception.

        Called from: any thread.
        """
        try:
            try:
                return _exception(self)
            except asyncio.CancelledError:
                pass
            raise self._make_cancelled_error()
        finally:
            del self


class SharedFuture(asyncio.Future[Any]):
    """A future that threads may begin to await at the same moment: the flag, once up, stays up.

    Named and shown as asyncio's. Never awaited but yielded bare, it is told apart still.
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

# With a GIL two threads must change places between two bytecodes to trip over each other's flag,
# and a generator of Python's costs an await a tenth more. Without one they do in 2 of 100 awaits
# that begin together, and it costs 5 of 100.
LoopFuture: type[asyncio.Future[Any]] = asyncio.Future if has_gil() else SharedFuture
