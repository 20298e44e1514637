"""What must run where a task is at home, and catches the task although that keeps moving.

An entry sent after a task can come to a home that the task has left by then, again and again: on
several cores a task that does nothing but move was followed through 1,800 moves. So a pursuer that
has missed its task is noted down, and then posted to where it is now. Whichever comes first runs
it: its turn in a mailbox while the task is at home there, or the task's next move, before it goes.

It runs once. Both ways run it in the thread of the task's home, and the task's home changes after
the look at who pursues it: whoever sees the new home sees that it was caught.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import ContextClosed
from .current import current_context

if TYPE_CHECKING:
    from .context import AioContext
    from .task import Task


class Pursuer:
    """A mailbox entry for wherever a task is at home."""

    __slots__ = ("_caught", "_task")

    _cancelled = False  # as a mailbox entry it is never passed over: it must leave `pursuing`

    def __init__(self, pursued: Task[Any]) -> None:
        self._task = pursued
        self._caught = False  # it has run, or is about to. Written at the task's home

    def _run(self) -> None:
        home = self._task._home  # before the look whether it was caught: pairs with on_leaving
        if self._caught:
            pursuing.discard(self)
        elif home is None or current_context() is home:
            pursuing.discard(self)
            self._caught = True
            self._act()
        else:
            pursuing.add(self)
            try:
                home._post_first(self)  # ahead of the task, if that is still on its way there
            except ContextClosed:
                self._unrun()

    def _act(self) -> None:
        """Do it: this is the task's home, and the task does not run."""
        raise NotImplementedError

    def _unrun(self) -> None:
        """The task's home has ended, or the one in whose mailbox it was."""
        pursuing.discard(self)


# Those who have missed their task, until they run. Any thread; each operation is atomic.
pursuing: set[Pursuer] = set()


def on_leaving(task: Task[Any], home: AioContext) -> None:
    """The task is about to move, and has been left: run what pursues it. At its home."""
    for each in pursuing.copy():
        if each._task is task:
            try:
                each._run()
            except BaseException as error:  # noqa: BLE001  (reported; the task goes on)
                home._report(each, error)
