"""The handle of call_soon_threadsafe, which any thread may cancel, as asyncio's since 3.14."""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._aio.handles import FastHandle, ThreadSafeHandle, run_handle
from .._os.guard import new_guard
from .big_lock import big_lock_released

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

if ThreadSafeHandle is None:
    SharedHandle = FastHandle
else:

    class SharedHandle(FastHandle, ThreadSafeHandle):  # type: ignore[no-redef, misc]
        """A handle with a state that is certain in every thread.

        A handle cancelled before it runs never runs; `cancel` and `cancelled` wait while another
        thread runs it, without the big lock, which the callback may need.
        """

        __slots__ = ("_mutex",)  # held while it runs, or is being cancelled

        def __init__(
            self,
            callback: Callable[..., object],
            args: tuple[Any, ...],
            loop: Any,
            context: contextvars.Context | None,
        ) -> None:
            # As FastHandle does, without the call.
            self._context = contextvars.copy_context() if context is None else context
            self._loop = loop
            self._callback = callback
            self._args = args
            self._cancelled = False
            self._repr = None
            self._source_traceback = None
            self._mutex = new_guard()

        def _run(self) -> None:
            with self._mutex:
                if not self._cancelled:
                    run_handle(self)

        @contextmanager
        def _not_running_elsewhere(self) -> Iterator[None]:
            if not self._mutex.acquire(blocking=False):
                with big_lock_released():
                    self._mutex.acquire()
            try:
                yield
            finally:
                self._mutex.release()

        def cancel(self) -> None:
            """Do not call it; if it runs, wait until it has. Called from: any thread."""
            with self._not_running_elsewhere():
                FastHandle.cancel(self)

        def cancelled(self) -> bool:
            """Return whether it was cancelled; wait while it runs. Called from: any thread."""
            with self._not_running_elsewhere():
                return self._cancelled
