"""PutOff: a stop that has to wait for the calls nested in `run_forever`.

A nested wait whose loop was told to stop cancels the task in whose step it was called, and those of
the waits beneath it. The stop is put off until these tasks are done: the shutdown that follows a
stop cancels every task, and a second CancelledError would interrupt their cleanup.

When the time for the end is over (`run(..., shutdown_timeout=)`), each nested wait raises
ContextClosed at once, so that the frames under it unwind and the loop gets to its own end. That is
no CancelledError, as a task that ignores those would wait again, and again, for ever.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .._aio.shapes import thread_frames
from .._errors import ContextClosed
from .._os.stacks import stack
from .big_lock import shown_thread
from .current import here
from .ended_waits import EndedWaits
from .interrupt import interrupt_above

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from .loop import Loop

_RECHECK = 0.05  # seconds between two looks, while a stop is put off, at the tasks at home


def refuse_late_wait(loop: Loop) -> None:
    """Raise ContextClosed if a stop is put off whose time is over. Home, or its stand-in."""
    put_off = loop.put_off
    if put_off is not None and here.seat.home is loop.home:
        put_off.raise_if_over(asked=False)


def must_end_waits(loop: Loop) -> bool:
    """Return whether the calling thread's nested wait may be in the way of a stop, or of Ctrl-C.

    Called from: the home, or its stand-in.
    """
    return (
        loop.is_stopping() or loop.put_off is not None or loop.interrupted_task() is not None
    ) and here.seat.home is loop.home


def ends_of(loop: Loop, outer: Any) -> EndedWaits | None:
    """Return what the innermost nested wait, of the task `outer`, is in the way of, if anything.

    Called from: home, after `must_end_waits`.
    """
    if loop.is_stopping() or loop.put_off is not None:
        return PutOff.of(loop)
    return interrupt_above(loop, outer)


def put_off_of(loop: Loop) -> PutOff | None:
    """Return the stop that is put off, also for tasks that Ctrl-C has ended before the main one.

    Called from: home, as the loop is told to stop.
    """
    interrupt = loop.home.interrupt
    if interrupt is not None and loop.put_off is None and interrupt.main.cancelled():
        loop.home.interrupt = None
        if interrupt.pending():
            PutOff.of(loop).take_over(interrupt)
    return loop.put_off


class PutOff(EndedWaits):
    """One stop of a loop, until its `run_forever` returns. Home thread only."""

    __slots__ = ("_alarm", "_is_last", "_is_told")

    only_innermost = False

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._alarm: TimerHandle | None = None
        self._is_last = False  # a turn of the loop was granted after the time was over
        self._is_told = False  # that nested waits were cut short

    @classmethod
    def of(cls, loop: Loop) -> PutOff:
        """Return the stop that is put off, made now if there is none."""
        put_off = loop.put_off
        if put_off is None:
            put_off = loop.put_off = cls(loop)
            loop.home._end_begins()
        return put_off

    def cancel_once(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Cancel a task, once; the loop stops when it is done. False if it was cancelled before."""
        if not super().cancel_once(task, cancel):
            return False
        task.add_done_callback(self._look)
        return True

    def take_over(self, ended: EndedWaits) -> None:
        """Wait for tasks that were cancelled for something else, too."""
        for task in ended._cancelled:
            self.cancel_once(task, bool)
        self.settle()

    def pending(self) -> bool:
        """Return whether a cancelled task still cleans up, and there is time for it."""
        return not self.over() and super().pending()

    def over(self) -> bool:
        """Return whether the time for it is over: nested waits then raise at once."""
        return self._loop.home._end_is_over()

    def proceed(self, *, asked: bool) -> None:
        """Put the stop off while tasks clean up; raise ContextClosed when the time is over."""
        self.settle()
        self.raise_if_over(asked=asked)

    def raise_if_over(self, *, asked: bool) -> None:
        """Raise ContextClosed when the time for the end is over.

        Not the first time, if tasks were `asked` to end just now, as with a time of 0: they are
        cancelled in one more turn. In the loop's own end all tasks were cancelled before.
        """
        home = self._loop.home
        if not self.over():
            return
        if asked and not self._is_last and not home._ending:
            self._is_last = True
            return
        if not self._is_told:
            self._is_told = True
            self._tell()
        message = (
            f"the time for the end of {home!r} is over ({home._shutdown_timeout} s), and its "
            "nested waits (block_on, wait_while, poll, ..._sync) end: return from the call"
        )
        raise ContextClosed(message)

    def _tell(self) -> None:
        """Report what waits, with the stack; if that ignores the error, this is all to be seen."""
        home, ident = self._loop.home, get_ident()
        lines = [f"  thread {shown_thread(ident)}:", *stack(thread_frames().get(ident))]
        message = (
            f"{home.name!r} has not ended after {home._shutdown_timeout} s, in a nested wait, "
            "which raises ContextClosed now:"
        )
        self._loop.call_exception_handler({"message": "\n".join([message, *lines])})

    def settle(self) -> None:
        """Withdraw the stop while tasks clean up, and stop again afterwards."""
        pending = self.pending()
        self._loop.set_stopping(value=not pending)
        # A wait that nothing cancels, for the end of another thread, looks when the time is over.
        waits = pending or (self._loop.home._end_by is not None and not self.over())
        if waits and self._alarm is None:
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
