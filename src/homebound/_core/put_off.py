"""PutOff: a stop that has to wait for the calls nested in `run_forever`.

A nested wait whose loop was told to stop cancels the task in whose step it was called, and those of
the waits beneath it. The stop is put off until these tasks are done: the shutdown that follows a
stop cancels every task, and a second CancelledError would interrupt their cleanup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .current import here

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from .loop import Loop

_RECHECK = 0.05  # seconds between two looks, while a stop is put off, at the tasks at home


def must_end_waits(loop: Loop) -> bool:
    """Return whether the calling thread's nested wait is in the way of a stop. Home or stand-in."""
    return (loop.is_stopping() or loop.put_off is not None) and here.seat.home is loop.home


class PutOff:
    """One stop of a loop, until its `run_forever` returns. Home thread only."""

    __slots__ = ("_alarm", "_cancelled", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._cancelled: set[Any] = set()  # the tasks that were cancelled for this stop
        self._alarm: TimerHandle | None = None

    @classmethod
    def of(cls, loop: Loop) -> PutOff:
        """Return the stop that is put off, made now if there is none, after `must_end_waits`."""
        put_off = loop.put_off
        if put_off is None:
            put_off = loop.put_off = cls(loop)
            loop.home._end_begins()
        return put_off

    def cancel_once(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Cancel a task, once; the loop stops when it is done. False if it was cancelled before."""
        if task in self._cancelled:
            return False
        self._cancelled.add(task)
        cancel()
        task.add_done_callback(self._look)
        return True

    def pending(self) -> bool:
        """Return whether a cancelled task still cleans up, and has not moved to another home."""
        home = self._loop.home
        return not self.over() and any(
            not task.done() and getattr(task, "_home", home) is home for task in self._cancelled
        )

    def over(self) -> bool:
        """Return whether the time for it is over: nested waits then return at once."""
        return self._loop.home._end_is_over()

    def settle(self) -> None:
        """Withdraw the stop while tasks clean up, and stop again afterwards."""
        pending = self.pending()
        self._loop.set_stopping(value=not pending)
        if pending and self._alarm is None:
            self._alarm = self._loop.call_later(_RECHECK, self._look)

    def _look(self, _task: object = None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._loop.put_off is self:
            self.settle()

    def end(self) -> None:
        """Forget the stop as `run_forever` returns."""
        if self._alarm is not None:
            self._alarm.cancel()
