"""A stop that has to wait: calls nested in `run_forever` turn the loop, and must end before it.

A nested wait that finds its loop told to stop cancels the task whose step it stands in, and so it
does for the waits beneath it. The stop is put off until those tasks are done: the shutdown that
follows a stop cancels every task, which would interrupt their cleanup with a second CancelledError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .current import here

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from .loop import Loop

_RECHECK = 0.05  # seconds after which a stop that is put off looks again which tasks are at home


def must_end_waits(loop: Loop) -> bool:
    """Whether a nested wait of the calling thread stands in the way of a stop. Home or stand-in."""
    return (loop.is_stopping() or loop.put_off is not None) and here.home is loop.home


class PutOff:
    """One stop of a loop, until its `run_forever` returns. Home thread only."""

    __slots__ = ("_alarm", "_asked", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked: set[Any] = set()  # the tasks, of any make, that were cancelled for this stop
        self._alarm: TimerHandle | None = None

    @classmethod
    def of(cls, loop: Loop) -> PutOff:
        """The stop that nested waits stand in the way of, as `must_end_waits` said."""
        put_off = loop.put_off
        if put_off is None:
            put_off = loop.put_off = cls(loop)
            loop.home._end_begins()
        return put_off

    def ask(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Cancel a task, once; the loop stops when it is done. False if it was cancelled before."""
        if task in self._asked:
            return False
        self._asked.add(task)
        cancel()
        task.add_done_callback(self._look)
        return True

    def pending(self) -> bool:
        """Whether a task is still at its cleanup, and has not left for another home."""
        home = self._loop.home
        return not self.over() and any(
            not task.done() and getattr(task, "_home", home) is home for task in self._asked
        )

    def over(self) -> bool:
        """Whether the time for it is: each nested wait is left at once then, cleanup or not."""
        return self._loop.home._end_is_over()

    def settle(self) -> None:
        """Take the stop back while tasks are at their cleanup, and stop again afterwards."""
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
        """`run_forever` returns: the stop has taken place."""
        if self._alarm is not None:
            self._alarm.cancel()
