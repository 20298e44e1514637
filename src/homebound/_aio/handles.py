"""asyncio's handles, made fit to be queued, run and cancelled by any thread."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events, futures
from typing import TYPE_CHECKING, Any

from .._errors import ContextClosed

if TYPE_CHECKING:
    from collections.abc import Callable


def _local_code(function: Any, name: str) -> Any:
    """Return the code of a function that is defined inside another."""
    return next(c for c in function.__code__.co_consts if getattr(c, "co_name", None) == name)


def _refuse_coroutine(callback: Any, _args: tuple[Any, ...]) -> None:
    """Refuse a coroutine of run_coroutine_threadsafe whose loop ended before it became a task."""
    names = callback.__code__.co_freevars
    parts = {
        name: cell.cell_contents for name, cell in zip(names, callback.__closure__, strict=True)
    }
    parts["coro"].close()
    future = parts["future"]
    if future.done():
        return  # by an earlier call, if a signal handler has interrupted the close
    if future.running() or future.set_running_or_notify_cancel():
        message = f"{parts['coro']!r} was never started: its loop has ended"
        future.set_exception(ContextClosed(message))


def _chain(callback: Any, args: tuple[Any, ...]) -> None:
    """Pass a result on to another future, a thread's or one of a loop that goes on."""
    try:
        callback(*args)
    except RuntimeError:
        pass  # that loop has ended as well


_STARTS_COROUTINE = _local_code(asyncio.run_coroutine_threadsafe, "callback")

# asyncio's callbacks that other threads wait for: what to do if the loop ends before they run.
_IF_NEVER_RUN: dict[Any, Callable[[Any, tuple[Any, ...]], None]] = {
    _STARTS_COROUTINE: _refuse_coroutine,
    _local_code(futures._chain_future, "_call_set_state"): _chain,  # type: ignore[attr-defined]
}


def starts_coroutine(callback: object) -> bool:
    """Return whether a callback is run_coroutine_threadsafe's, which makes a task."""
    return getattr(callback, "__code__", None) is _STARTS_COROUTINE


class FastHandle(events.Handle):
    """asyncio's Handle, which does not ask the loop for its debug flag each time."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Any,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def _unrun(self) -> None:
        """Tell a waiting thread that the handle's loop ended with the handle in its mailbox."""
        callback = self._callback
        tell = _IF_NEVER_RUN.get(getattr(callback, "__code__", None))
        if tell is not None and not self._cancelled:
            tell(callback, self._args)  # type: ignore[arg-type]


run_handle = events.Handle._run
ThreadSafeHandle: Any = getattr(events, "_ThreadSafeHandle", None)  # since 3.14


class ErrandHandle(FastHandle):
    """A handle that any thread may cancel, even while it runs: it cancels its callback, an errand.

    asyncio's handle drops its callback when it is cancelled, and may be about to call it.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it. Called from: any thread."""
        self._cancelled = True
        self._callback.cancel()  # type: ignore[attr-defined]


class ErrandTimer(events.TimerHandle):
    """An ErrandHandle with a time."""

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it. Called from: any thread."""
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]
            self._cancelled = True
            self._callback.cancel()  # type: ignore[attr-defined]


def hide_last_frame(handle: Any) -> None:
    """Remove the last frame from the stack that debug mode shows for a handle."""
    if handle._source_traceback:
        del handle._source_traceback[-1]
