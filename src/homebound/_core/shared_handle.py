"""The handle of call_soon_threadsafe, which any thread may cancel, as asyncio's since 3.14."""

from __future__ import annotations

import _thread
import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._aio.handles import FastHandle, ThreadSafeHandle, run_handle
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
            self._mutex = _thread.RLock()

        def _run(self) -> None:
            mutex = self._mutex
            try:  # not `with`: see _os/guard.py, whose locks would cost each handle more
                mutex.acquire()
                if not self._cancelled:
                    run_handle(self)
            finally:
                try:
                    mutex.release()
                except RuntimeError:
                    pass  # interrupted before it was acquired

        @contextmanager
        def _not_running_elsewhere(self) -> Iterator[None]:
            mutex = self._mutex
            try:
                if not mutex.acquire(blocking=False):
                    with big_lock_released():
                        mutex.acquire()
                yield
            finally:
                try:
                    mutex.release()
                except RuntimeError:
                    pass  # interrupted before it was acquired

        def cancel(self) -> None:
            """Do not call it; if it runs, wait until it has. Called from: any thread."""
            with self._not_running_elsewhere():
                FastHandle.cancel(self)

        def cancelled(self) -> bool:
            """Return whether it was cancelled; wait while it runs. Called from: any thread."""
            with self._not_running_elsewhere():
                return self._cancelled
