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

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from .loop import Loop
    from .task import Task

_RECHECK = 0.05  # seconds between two looks, while a stop is put off, at the tasks at home


def refuse_late_wait(loop: Loop) -> None:
    """Raise ContextClosed if a stop is put off whose time is over. Home, or its stand-in."""
    put_off = loop.put_off
    if put_off is not None and here.seat.home is loop.home:
        put_off.raise_if_over(asked=False)


def must_end_waits(loop: Loop) -> bool:
    """Return whether the calling thread's nested wait is in the way of a stop. Home or stand-in."""
    return (loop.is_stopping() or loop.put_off is not None) and here.seat.home is loop.home


class PutOff:
    """One stop of a loop, until its `run_forever` returns. Home thread only."""

    __slots__ = ("_alarm", "_cancelled", "_is_last", "_is_told", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._cancelled: set[Any] = set()  # the tasks that were cancelled for this stop
        self._alarm: TimerHandle | None = None
        self._is_last = False  # a turn of the loop was granted after the time was over
        self._is_told = False  # that nested waits were cut short

    @classmethod
    def of(cls, loop: Loop) -> PutOff:
        """Return the stop that is put off, made now if there is none, after `must_end_waits`."""
        put_off = loop.put_off
        if put_off is None:
            put_off = loop.put_off = cls(loop)
            loop.home._end_begins()
        return put_off

    def end_wait(self, task: Any, cancel: Callable[[], object]) -> bool:
        """Cancel a task that waits in a call, and those in whose `block_on` it runs, each once.

        All in one go: a caller cancels what it waits for, and would interrupt its cleanup later on.
        """
        for caller in self._run_inline_by(task):
            self.cancel_once(caller, caller.cancel)
        return self.cancel_once(task, cancel)

    def _run_inline_by(self, task: Any) -> list[Task[Any]]:
        """Return the tasks in whose `block_on` `task` runs, outermost first."""
        home = self._loop.home
        callers: list[Task[Any]] = []
        while isinstance(task, home.task_type):
            inner = task
            task = next(
                (
                    each
                    for each in home._tasks()
                    # A task that awaits it is among its listeners.
                    if each._fut_waiter is inner and each not in inner._listeners
                ),
                None,
            )
            if task is None or task in callers:
                break
            callers.insert(0, task)
        return callers

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
        """Return whether the time for it is over: nested waits then raise at once."""
        return self._loop.home._end_is_over()

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
