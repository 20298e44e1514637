"""Entries that keep a promise which an exception may have cut short: to run a task once more.

The exception is a signal handler's, or there was no memory or no stack. It may have come before the
task was queued, or after. Such an entry is posted behind the task, if that is queued; and if the
task has run by the time it is this entry's turn, the promise was kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import ContextClosed
from .._os.snapshot import snapshot

if TYPE_CHECKING:
    from collections import deque


class Resumption:
    """Enters a task, unless it has run since `cell` promised that.

    A step of a suspended task begins by taking another cell.
    """

    __slots__ = ("_cell", "_task")

    _cancelled = False

    def __init__(self, task: Any, cell: list[Any]) -> None:
        self._task = task
        self._cell = cell

    def _run(self) -> None:
        if self._task._cell is self._cell:
            self._task._run()

    def _unrun(self) -> None:
        """Abandon the task: its home has ended."""
        if self._task._cell is self._cell:
            self._task._abandon("ended with it")


class Continuation:
    """Continues a task that awaits a future which is done, unless it has run since.

    A step begins by forgetting what the task awaited, and no task awaits a future that is done.
    """

    __slots__ = ("_awaited", "_task")

    _cancelled = False

    def __init__(self, task: Any, awaited: Any) -> None:
        self._task = task
        self._awaited = awaited

    def _run(self) -> None:
        task = self._task
        if task._fut_waiter is self._awaited:
            _take_out(task._home._ready, task)  # late, by what a signal handler has interrupted
            task._run()


def _take_out(ready: deque[Any], task: Any) -> None:
    while True:
        try:
            ready.remove(task)
        except ValueError:
            return  # it is not there
        except IndexError:
            pass  # another thread has posted meanwhile: again


def continue_surely(task: Any, awaited: Any) -> None:
    """Have `task` run once more if it still awaits `awaited`, which is done.

    Called from: any thread.
    """
    try:
        task._home._post(Continuation(task, awaited))
    except ContextClosed:
        pass  # and so the task was abandoned


def find_lost(home: Any) -> None:
    """Have each task run once more that is in no queue of its home, and that nobody is to wake.

    Called from: home thread.
    """
    tasks = home._tasks()  # before the queue: it may be queued as soon as it is at home
    ready = snapshot(home._ready)
    if not ready and home._ready:
        return  # other threads never stopped changing it: what is queued is not known
    queued = {id(each) for each in (*ready, *snapshot(home._woken))}
    for task in tasks:
        if id(task) not in queued:
            task._resume_if_lost(home)
