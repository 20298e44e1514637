"""What a TaskGroup is made of: who belongs to it, and how word gets to its parent.

Any thread may make a child, or cancel the group; so what that looks at stands in `Members`, under a
lock of its own. Everything else is decided at the parent's home, and sent there.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop
from .._errors import ContextClosed
from .current import current_context
from .pursuit import Pursuer
from .stand_in import may_run_here
from .task import Task

if TYPE_CHECKING:
    from .context import AioContext
    from .task_group import TaskGroup


class Members:
    """The children, and whether more may come. Every method: any thread, atomically."""

    def __init__(self) -> None:
        self._lock = _thread.RLock()  # guards every field; finalisers alone come in under it
        self.tasks: set[Any] = set()  # those whose end the parent has not taken note of
        self._coming = 0  # children being made: they count, though they are no tasks yet
        self.entered = False  # set once
        self._exiting = False  # set once
        self.cancelled = False  # set once, by any thread; the parent is yet to be told
        self.aborting = False  # set once, at the parent's home

    def _is_over(self) -> bool:
        return self._exiting and not self.tasks and not self._coming

    def enter(self) -> bool:
        """The block begins. True if the group was cancelled before."""
        with self._lock:
            self.entered = True
            return self.cancelled

    def why_not(self) -> str | None:
        """Reserve a place for a child; or why there is none."""
        with self._lock:
            if not self.entered:
                return "has not been entered"
            if self._is_over():
                return "is finished"
            if self.aborting or self.cancelled:
                return "is shutting down"
            self._coming += 1
            return None

    def arrived(self, task: Any) -> bool:
        """The child exists (None: it could not be made). True if it is to be cancelled at once."""
        with self._lock:
            self._coming -= 1
            if task is not None:
                self.tasks.add(task)
            return self.aborting

    def left(self, task: Any) -> None:
        """The child's end has been taken note of."""
        with self._lock:
            self.tasks.discard(task)

    def exiting(self) -> bool:
        """The parent waits for the rest. False if there is none, nor will be."""
        with self._lock:
            self._exiting = True
            return not self._is_over()

    def cancel(self) -> bool:
        """No child comes in any more. True if the parent is in the block, and to be told."""
        with self._lock:
            if self._is_over():
                return False
            self.cancelled = True
            return self.entered

    def is_over(self) -> bool:
        """The parent waits for no child any more."""
        with self._lock:
            return self._is_over()

    def abort(self) -> list[Any]:
        """No child comes in any more; those to be cancelled."""
        with self._lock:
            self.aborting = True
            return list(self.tasks)


def cancel_child(task: Any) -> None:
    """Cancel a child; one that is not ours is its loop's thread's to touch."""
    if isinstance(task, Task):
        task.cancel()
        return
    loop = task.get_loop()
    if running_loop() is loop:
        task.cancel()
        return
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        pass  # its loop has ended, and it with that


class Ended:
    """A child has ended: on its way to the parent's home, as a mailbox entry there."""

    __slots__ = ("_child", "_group")

    _cancelled = False

    def __init__(self, group: TaskGroup, child: Any) -> None:
        self._group = group
        self._child = child

    @property
    def _awaiter(self) -> Any:
        """The task that awaits the child."""
        return self._group._parent

    def _heard(self, _: object) -> None:
        """In the thread where the child has ended."""
        parent = self._group._parent
        try:
            if isinstance(parent, Task):
                parent._home._post(self)  # type: ignore[union-attr]
            elif parent is not None:
                parent.get_loop().call_soon_threadsafe(self._run)
        except RuntimeError:
            self._unrun()

    def _run(self) -> None:
        parent = self._group._parent
        if isinstance(parent, Task) and parent._home is not current_context() and not parent.done():
            self._heard(None)  # it has moved: follow it
        elif self._child is None:
            self._group._look()
        else:
            self._group._child_ended(self._child)

    def _unrun(self) -> None:
        """The parent's home has ended, and the parent with it."""
        if self._child is not None:
            self._group._child_ended(self._child)


def cancel_group(group: TaskGroup, parent: Any) -> None:
    """Have the group cancelled where its parent is: at once if that is here."""
    if isinstance(parent, Task):
        home: AioContext = parent._home  # type: ignore[assignment]  # it runs: it has one
        if may_run_here(home):
            group._cancel_here()
            return
        try:
            home._post_first(_Cancelled(group, parent))
        except ContextClosed:
            group._abort()
        return
    loop = parent.get_loop()
    if running_loop() is loop:
        group._cancel_here()
        return
    try:
        loop.call_soon_threadsafe(group._cancel_here)
    except RuntimeError:
        group._abort()  # the parent has ended with its loop: the children go on elsewhere


class _Cancelled(Pursuer):
    """The group is cancelled: on its way to the parent, which it catches wherever that moves."""

    __slots__ = ("_group",)

    def __init__(self, group: TaskGroup, parent: Task[Any]) -> None:
        super().__init__(parent)
        self._group = group

    def _act(self) -> None:
        self._group._cancel_here()

    def _unrun(self) -> None:
        """The parent's home has ended, and the parent with it."""
        super()._unrun()
        self._group._abort()
