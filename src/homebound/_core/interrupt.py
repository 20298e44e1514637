"""Interrupt: Ctrl-C for a main task that waits in a call, beneath the nested waits of others.

asyncio.Runner has the first Ctrl-C cancel the main task. If that waits in a call (`block_on`,
`poll`, a lock's `..._sync`), other tasks run nested in its wait, and may wait in calls of their
own: the main task's call cannot return before theirs, however long they take. So theirs are ended,
innermost first, as a stop of the loop ends them (put_off.py): each task is cancelled, once. The
main task's call returns when these are done, as the end of the program, which often follows, would
cancel them a second time, in their cleanup.

A main task that ignores Ctrl-C goes on after its call, and so does the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ended_waits import EndedWaits

if TYPE_CHECKING:
    from .loop import Loop
    from .task import Task


class Interrupt(EndedWaits):
    """The waits that were ended for the main task, until its call returns. Home thread only."""

    __slots__ = ("_main",)

    only_innermost = True

    def __init__(self, loop: Loop, main: Task[Any]) -> None:
        super().__init__(loop)
        self._main = main


def interrupt_above(loop: Loop, outer: Any) -> Interrupt | None:
    """Return the interrupt to which the innermost nested wait, of task `outer`, must give way.

    Called from: home.
    """
    main = loop.interrupted_task()
    if type(main) is not loop.task_type or not _is_kept(main, outer):
        return None
    interrupt = loop.home.interrupt
    if interrupt is None or interrupt._main is not main:
        interrupt = loop.home.interrupt = Interrupt(loop, main)
    return interrupt


def is_held_back(loop: Loop, outer: Any) -> bool:
    """Return whether a call of the task `outer` that is over is to wait for tasks that clean up.

    Called from: home, or its stand-in.
    """
    interrupt = loop.home.interrupt
    if interrupt is None or interrupt._main is not outer:
        return False
    if interrupt.pending():
        return True
    loop.home.interrupt = None
    return False


def _is_kept(main: Task[Any], outer: Any) -> bool:
    """Return whether only the wait of `outer` keeps a cancelled call of the main task going."""
    if main is outer or not _is_in_step(main):
        return False
    # What it waits for in a call, what that waits for in one, and so on; see waiting.py.
    last = main
    while _is_in_step(last) and type(last._fut_waiter) is type(main):
        last = last._fut_waiter
        if last is outer:
            return False
    if last.done():
        return last.cancelled()
    return last._must_cancel and _is_in_step(last)


def _is_in_step(task: Task[Any]) -> bool:
    return bool(getattr(task.get_coro(), "cr_running", False))
