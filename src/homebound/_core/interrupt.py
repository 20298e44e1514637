"""Interrupt: Ctrl-C for a main task that waits in a call, beneath the nested waits of others.

asyncio.Runner has the first Ctrl-C cancel the main task. If that waits in a call (`block_on`,
`poll`, a lock's `..._sync`), other tasks run nested in its wait, and may wait in calls of their
own: the main task's call cannot return before theirs, however long they take. So theirs are ended,
innermost first, as a stop of the loop ends them (put_off.py): each task is cancelled, once. If the
main task ends then, the loop stops once these have cleaned up (`put_off_of`), as what follows
cancels every task.

Only the call counts in which Ctrl-C came. A main task that ignores it goes on after that call, and
asyncio.Runner does not say of a later cancellation whether it is Ctrl-C's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ended_waits import EndedWaits

if TYPE_CHECKING:
    from .loop import Loop
    from .loop_context import LoopContext
    from .task import Task


class Interrupt(EndedWaits):
    """The waits that were ended for the main task. Home thread only."""

    __slots__ = ("main",)

    only_innermost = True

    def __init__(self, loop: Loop, main: Task[Any]) -> None:
        super().__init__(loop)
        self.main = main


def note_call(home: LoopContext, task: Any) -> None:
    """Note whether Ctrl-C has come before the main task made the call that begins, by `task`.

    Called from: home, or its stand-in.
    """
    interrupted = home.loop.interrupted_task()
    if interrupted is None:
        home.calls_late = False
    elif interrupted is task:
        home.calls_late = True


def interrupt_above(loop: Loop, outer: Any) -> Interrupt | None:
    """Return the interrupt to which the innermost nested wait, of task `outer`, must give way.

    Called from: home.
    """
    home, main = loop.home, loop.interrupted_task()
    if home.calls_late or type(main) is not loop.task_type or not _is_kept(main, outer):
        return None
    if home.interrupt is None or home.interrupt.main is not main:
        home.interrupt = Interrupt(loop, main)
    return home.interrupt


def _is_kept(main: Task[Any], outer: Any) -> bool:
    """Return whether only the wait of `outer` keeps the main task, cancelled in a call, from it."""
    if main is outer or not _is_in_step(main):
        return False
    # What it waits for in a call, what that waits for in one, and so on; see waiting.py.
    last, asked = main, main._must_cancel
    while type(last._fut_waiter) is type(main):
        below, last = last, last._fut_waiter
        if last is outer:
            return False
        if not (_is_in_step(below) or _is_in_step(last)):
            break  # that one is awaited, and its end is told
        asked = asked or last._must_cancel
    if last.done():
        return asked or last.cancelled() or last.exception() is not None
    return last._must_cancel and _is_in_step(last)


def _is_in_step(task: Task[Any]) -> bool:
    return bool(getattr(task.get_coro(), "cr_running", False))
