"""What stands in a mailbox beside tasks: posted callbacks and bottom halves.

An entry has `_cancelled` and `_run()`; the home calls `_run()` unless it was cancelled, and reports
what it raises to the loop's exception handler.
"""

from __future__ import annotations

import _thread
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._context import AioContext


class Posted(partial[object]):
    """A callback on its way to its home. `cancel()` it from any thread while it has not run.

    A partial, because making and calling one stays in C: posting is what busy producers do most.
    """

    _cancelled = False
    _run = partial.__call__

    def cancel(self) -> None:
        """Do not call it, if it has not begun.

        Called from: any thread.
        """
        self._cancelled = True

    def cancelled(self) -> bool:
        """True once cancelled.

        Called from: any thread.
        """
        return self._cancelled

    def __repr__(self) -> str:
        state = " cancelled" if self._cancelled else ""
        return f"<Posted{state} {self.args[0]!r}>"


def posted(callback: Callable[..., object], args: tuple[Any, ...]) -> Posted:
    """`callback(*args)`, to be called in a copy of the poster's contextvars."""
    return Posted(copy_context().run, callback, *args)


class BottomHalf:
    """A callback that any thread schedules: often before it runs, it runs once.

    Made by `AioContext.bottom_half`. What is scheduled while it runs, runs in the next iteration.

    >>> import asyncio, homebound
    >>> async def main():
    ...     runs = []
    ...     bottom_half = homebound.current_context().bottom_half(lambda: runs.append("ran"))
    ...     bottom_half.schedule()
    ...     bottom_half.schedule()
    ...     await asyncio.sleep(0)
    ...     await asyncio.sleep(0)
    ...     return runs
    >>> homebound.run(main())
    ['ran']

    Called from: any thread.
    """

    __slots__ = ("_callback", "_closed", "_context", "_queued", "_wanted")

    _cancelled = False  # as a mailbox entry it is never passed over: it must leave the queue

    def __init__(self, context: AioContext, callback: Callable[[], object]) -> None:
        self._context = context
        self._callback = callback
        self._closed = False  # set once, by any thread
        self._wanted = False  # call it; set before queueing, looked at after leaving the queue
        self._queued = _thread.allocate_lock()  # held while it stands in the mailbox

    def schedule(self) -> None:
        """Have it called soon by the context's home; no-op while that is promised, or if closed.

        Raises ContextClosed if the context has ended.

        Called from: any thread.
        """
        if self._closed:
            return
        context = self._context
        # Wanted, a pass through the deque's lock, then the try: pairs with _run, which passes
        # through the same lock between leaving the queue and looking whether it is wanted.
        self._wanted = True
        context._ready.rotate(0)
        if self._queued.acquire(blocking=False):
            context._ready.append(self)
            if context._bell:
                try:
                    context._ring(self)
                except BaseException:
                    self._queued.release()
                    raise

    def cancel(self) -> None:
        """Take a schedule back, if it has not begun to run. It can be scheduled again.

        Called from: any thread.
        """
        self._wanted = False

    def close(self) -> None:
        """Never call it again, whatever was or will be scheduled.

        Called from: any thread.
        """
        self._closed = True
        self._wanted = False

    def _run(self) -> None:
        self._queued.release()
        self._context._ready.rotate(0)  # pairs with schedule
        if not self._wanted or self._closed:
            self._context._skipped += 1
            return
        self._wanted = False
        self._callback()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "scheduled" if self._wanted else "idle"
        return f"<BottomHalf {state} {self._callback!r} of {self._context!r}>"
