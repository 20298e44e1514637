"""asyncio's handles, made fit to be queued, run and cancelled by any thread.

One of the files that know asyncio's private names; see _asyncio_private.py.
"""

from __future__ import annotations

import _thread
import contextvars
import sys
from asyncio import events
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._biglock import big_lock_let_go

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


_run_handle = events.Handle._run

if sys.version_info < (3, 14):
    SharedHandle = FastHandle
else:

    class SharedHandle(FastHandle, events._ThreadSafeHandle):
        """What call_soon_threadsafe returns: any thread may cancel it, and knows what became of it.

        Cancelled before it runs, it never does; `cancel` and `cancelled` wait while another thread
        runs it. Here without the big lock, which that one may need.
        """

        __slots__ = ("_mutex",)  # held while it runs, or is being cancelled

        def __init__(
            self,
            callback: Callable[..., object],
            args: tuple[Any, ...],
            loop: Any,
            context: contextvars.Context | None,
        ) -> None:
            # As FastHandle's, without a call.
            self._context = contextvars.copy_context() if context is None else context
            self._loop = loop
            self._callback = callback
            self._args = args
            self._cancelled = False
            self._repr = None
            self._source_traceback = None
            self._mutex = _thread.RLock()

        def _run(self) -> None:
            with self._mutex:
                if not self._cancelled:
                    _run_handle(self)

        @contextmanager
        def _not_running_elsewhere(self) -> Iterator[None]:
            if not self._mutex.acquire(blocking=False):
                with big_lock_let_go():
                    self._mutex.acquire()
            try:
                yield
            finally:
                self._mutex.release()

        def cancel(self) -> None:
            """Do not call it; if it runs, wait until it has. Called from: any thread."""
            with self._not_running_elsewhere():
                events.Handle.cancel(self)

        def cancelled(self) -> bool:
            """Whether it was cancelled; if it runs, wait until it has. Called from: any thread."""
            with self._not_running_elsewhere():
                return self._cancelled


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
