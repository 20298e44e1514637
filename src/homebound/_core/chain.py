"""Chains of wake-ups: the tasks that a task wakes run when it suspends, before anything else."""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .task import Task

REPEATS = 64  # how often tasks may be run again in one chain of wake-ups before the loop looks up

_popleft: Callable[[deque[Any]], Any] = deque.popleft


def pour(
    queue: deque[Any],
    take: Callable[[deque[Any]], Any],
    put: Callable[[Iterable[Any]], None],
) -> None:
    """Empty a queue into another: each entry leaves the one and enters the other in one C call.

    So a signal handler finds it in one of them, and what it adds meanwhile is moved as well.
    """
    while queue:
        try:
            put(map(take, repeat(queue, len(queue))))
        except IndexError:
            pass  # the handler has emptied it


class Chain(Mailbox):
    """The part of a context that runs the tasks which its tasks wake."""

    def __init__(self) -> None:
        super().__init__()
        # Tasks woken by the one that runs now, behind what is left of the chain it belongs to; and
        # whether a chain is being run. Home only, and signal handlers there: see `_run_chain`.
        self._woken: deque[Task[Any]] = deque()
        self._chained = False
        # Pops the first of them at each step, with no bytecode between the pop and the assignment.
        self._takes: Iterator[Task[Any]] = map(_popleft, repeat(self._woken))
        # Entries run beyond one in each iteration: most run one, and then need no addition.
        # Negative if many iterations were empty. Home only.
        self._more = 0

    def _end_in_child(self) -> None:
        super()._end_in_child()
        self._woken.clear()  # a task of this context may have forked: no other runs in the child

    def _put_aside(self) -> bool:
        """Leave the woken tasks to later iterations; return whether a chain was being run."""
        chained = self._chained
        self._chained = False
        pour(self._woken, deque.pop, self._ready.extendleft)
        return chained

    def _end_chain(self) -> None:
        """Queue the woken tasks of a task that ends the loop by an exception."""
        if not self._chained:  # else the chain that it is in does it
            pour(self._woken, _popleft, self._ready.extend)

    def _run_chain(self) -> None:
        """Run the tasks that the task which just suspended or ended has woken, depth first.

        There is no recursion: a chain of any length runs in this one loop. There is no starvation:
        a task may run again in the same chain, but after REPEATS of that the rest goes to the
        mailbox, so that timers, sockets and other tasks have their iteration.

        The chain is one deque. The tasks that a task wakes are appended to it, and rotated to its
        head when that task suspends. A signal handler may wake tasks between any two bytecodes.
        While a task runs, they are appended as well. Between two tasks, the woken task runs in the
        handler, on top of this frame, and the tasks that it wakes in turn

        * run in a chain on top, with what is left of this one, before `_chained` is set and after
          it is cleared: this frame then finds the deque empty, or puts later tasks into the mailbox
        * are appended otherwise: this frame runs them, or puts them into the mailbox if they came
          after its last look

        One C call moves each task into the deque and out of it, so a task is never in two queues.
        It could be in none if the handler raises: a task that was popped and has not begun is
        queued again.
        """
        woken = self._woken
        task: Task[Any] | None = None
        cell: list[Any] = []
        try:
            self._chained = True
            seen: set[Task[Any]] = set()
            repeats = 0
            rest = len(woken) - 1
            for task in self._takes:
                cell = task._cell
                if task in seen:
                    repeats += 1
                    if repeats > REPEATS:
                        break
                seen.add(task)
                self._more += 1
                task._run()
                task = None  # noqa: PLW2901
                left = len(woken)
                if not left:
                    break
                if left > rest > 0:
                    woken.rotate(left - rest)
                # Last: the jump rule.
                rest = left - 1
        except IndexError:  # a chain on top has emptied it
            if task is not None:
                raise
        finally:
            self._chained = False
            if task is not None and task._cell is cell:  # not begun: a step begins with a new cell
                self._ready.append(task)
            if woken:
                pour(woken, _popleft, self._ready.extend)
