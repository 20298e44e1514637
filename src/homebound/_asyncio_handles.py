"""asyncio's handles, made fit to be queued, run and cancelled by any thread.

One of the files that know asyncio's private names; see _asyncio_private.py.
"""

from __future__ import annotations

import contextvars
from asyncio import events
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class FastHandle(events.Handle):
    """asyncio's Handle without asking the loop for its debug flag each time."""

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


run_handle = events.Handle._run
ThreadSafeHandle: Any = getattr(events, "_ThreadSafeHandle", None)  # since 3.14


class ErrandHandle(FastHandle):
    """A handle that any thread may cancel, also while it runs: what it calls looks for itself.

    asyncio's forgets its callback then, and may be about to call it. This one has it cancelled.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it. Called from: any thread."""
        self._cancelled = True
        self._callback.cancel()  # type: ignore[attr-defined]


class ErrandTimer(events.TimerHandle):
    """A timer of that kind."""

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it. Called from: any thread."""
        if not self._cancelled:
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]
            self._cancelled = True
            self._callback.cancel()  # type: ignore[attr-defined]


def hide_last_frame(handle: Any) -> None:
    """Debug mode remembers the stack in which a handle was made: take the last frame off it."""
    if handle._source_traceback:
        del handle._source_traceback[-1]
