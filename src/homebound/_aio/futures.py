"""asyncio's futures, with the private parts that make them fit to be awaited from several threads.

One of the files that know asyncio's private names; see loop.py.
"""

from __future__ import annotations

import asyncio
import sys
from _asyncio import Future
from asyncio import futures
from typing import TYPE_CHECKING, Any

from .tasks import always_awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CFuture = Future  # asyncio.Future, unless nest_asyncio has put the one in Python into its place

# A future's loop; of those without get_loop(), too.
loop_of: Callable[[Any], Any] = futures._get_loop  # type: ignore[attr-defined]

# Whether the GIL is on: without it at the start, an extension module can switch it on later.
has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)


# Since 3.14 asyncio's futures remember which tasks await them, for call graphs.
RECORDS_AWAITS = sys.version_info >= (3, 14)

if not RECORDS_AWAITS:

    def begins_wait(yielded: Any, task: Any) -> bool | None:  # noqa: ARG001  (for 3.14)
        """What a task's coroutine yielded: True for a future being awaited, False for a bare one.

        None if no future at all. (`_asyncio_future_blocking` is how asyncio tells them apart.)
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
        """As above; a future being awaited remembers the task until `forget_await`."""
        blocking: bool | None = getattr(yielded, "_asyncio_future_blocking", None)
        if blocking:
            yielded._asyncio_future_blocking = False
            _record(yielded, task)
        return blocking

    def record_child(child: Any, parent: Any) -> None:
        """Have a task of asyncio's show `parent` as what awaits it, until it is done."""
        _record(child, parent)
        child.add_done_callback(lambda _: forget_await(child, parent))


def ask_in_vain(future: Any) -> None:
    """Ask a future for its outcome, and drop it: its exception is not reported as never retrieved.

    asyncio's tasks ask when they are woken, also where a cancellation has come in between and is
    what they raise.
    """
    if future.done() and not future.cancelled():
        future.exception()


_result = CFuture.result
_exception = CFuture.exception
_cancel = CFuture.cancel


class FutureParts(CFuture[Any]):
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
        _cancel(self, error.args[0] if error.args else None)

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

    if RECORDS_AWAITS:

        @property
        def _asyncio_awaited_by(self) -> frozenset[Any] | None:
            """The tasks that await this one: ours, those of asyncio's, and those it has recorded.

            It records tasks of its own, and the callers of gather, wait, shield and its TaskGroup.
            """
            return frozenset(self._awaiters().union(_recorded(self) or ())) or None

    def _awaiters(self) -> set[Any]:
        """The tasks that await this one, as far as asyncio has not recorded them."""
        raise NotImplementedError

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


class SharedFuture(CFuture[Any]):
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
LoopFuture: type[asyncio.Future[Any]] = CFuture if has_gil() else SharedFuture
