"""EndedWaits: tasks that wait in calls, nested in a loop's turns, and that are to leave these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop
    from .task import Task


class EndedWaits:
    """The tasks that were cancelled so that others can go on, each once. Home thread only."""

    __slots__ = ("_cancelled", "_loop")

    only_innermost: ClassVar[bool]  # else all nested waits of the thread are ended

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._cancelled: set[Any] = set()

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
        """Cancel a task, once; False if it was cancelled before."""
        if task in self._cancelled:
            return False
        self._cancelled.add(task)
        cancel()
        return True

    def pending(self) -> bool:
        """Return whether a cancelled task still cleans up, and has not moved to another home."""
        home = self._loop.home
        return any(
            not task.done() and getattr(task, "_home", home) is home for task in self._cancelled
        )

    def proceed(self, *, asked: bool) -> None:
        """Go on after a look at the waits; some of their tasks were `asked` to end just now."""
