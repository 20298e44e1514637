"""Pursuers: entries that must run at a task's home, and reach the task although it keeps moving.

An entry sent after a task can reach a home that the task has just left, again and again: on several
cores a task that only moved was followed through 1,800 moves. So a pursuer that has missed its task
is recorded in `pursuing` and then posted to the task's present home. It runs at the first of two
events: its turn in a mailbox while the task is at home there, or the task's next move, before that.

It runs once. Both ways run it in the thread of the task's home. But a waker may take a suspended
task elsewhere, and have it run and move there, between this thread's look at the home and its act:
so the thread that takes the one item of `_turn` runs it. A move changes the task's home after the
look at its pursuers: a thread that sees the new home also sees that the item was taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import ContextClosed
from .._os.process import AtFork, at_fork
from .current import current_context

if TYPE_CHECKING:
    from .context import AioContext
    from .task import Task


class Pursuer:
    """A mailbox entry that runs at a task's home, wherever that is."""

    __slots__ = ("_task", "_turn")

    _cancelled = False  # never skipped in a mailbox: it must leave `pursuing`

    def __init__(self, pursued: Task[Any]) -> None:
        self._task = pursued
        self._turn = [None]  # empty once it has run, or is about to. Popped in any home's thread

    def _run(self) -> None:
        home = self._task._home  # before the look whether it was caught: pairs with on_leaving
        turn = self._turn
        if turn and home is not None and current_context() is not home:
            self._follow(home)
            return
        pursuing.discard(self)
        try:
            turn.pop()
        except IndexError:
            return  # it was caught
        self._act()

    def _let_go(self, home: AioContext) -> None:
        """Follow the task, caught while another thread takes it to `home`. Called by `_act`."""
        self._turn.append(None)
        self._follow(home)

    def _follow(self, home: AioContext) -> None:
        pursuing.add(self)
        try:
            home._post_first(self)  # ahead of the task, if that is still on its way there
        except ContextClosed:
            self._unrun()

    def _act(self) -> None:
        """Act at the task's home, while the task does not run."""
        raise NotImplementedError

    def _unrun(self) -> None:
        """Give up, as the task's home has ended, or the one in whose mailbox it was."""
        pursuing.discard(self)


# The pursuers that have missed their task, until they run. Any thread; each operation is atomic.
pursuing: set[Pursuer] = set()
at_fork(AtFork.PURSUERS, pursuing.clear)


def on_leaving(task: Task[Any], home: AioContext) -> None:
    """Run the pursuers of a suspended task that is about to move. Called at its home."""
    for each in pursuing.copy():
        if each._task is task:
            try:
                each._run()
            except BaseException as error:  # noqa: BLE001  (reported; the task goes on)
                home._report(each, error)
