"""The parts of a TaskGroup: its members, and the entries that it sends to its parent's home.

Any thread may make a child, or cancel the group; so the state for that is in `Members`, under a
lock of its own. Everything else is decided at the parent's home, and sent there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop
from .._errors import ContextClosed
from .._os.guard import new_guard
from .pursuit import Pursuer, at_home, living_home, post_after
from .stand_in import may_run_here
from .task import Task

if TYPE_CHECKING:
    from .context import AioContext
    from .task_group import TaskGroup


class Members:
    """The children, and whether more may join. Each method is atomic, for any thread."""

    def __init__(self) -> None:
        # Guards every field. Reentrant, as a finaliser may run while it is held.
        self._lock = new_guard()
        self.tasks: set[Any] = set()  # the children whose end the parent has not yet noted
        self._coming = 0  # children being made: they count as members, but are no tasks yet
        self.entered = False  # set once
        self._exiting = False  # set once
        self.cancelled = False  # set once, by any thread, before the parent is notified
        self.aborting = False  # set once, at the parent's home

    def _is_over(self) -> bool:
        return self._exiting and not self.tasks and not self._coming

    def enter(self) -> bool:
        """Begin the block; True if the group was cancelled before."""
        with self._lock:
            self.entered = True
            return self.cancelled

    def reserve(self) -> str | None:
        """Reserve a place for a child, or return why the group accepts none."""
        with self._lock:
            if not self.entered:
                return "has not been entered: write `async with TaskGroup() as group:`"
            if self._is_over():
                return "is finished: create its tasks in its `async with` block"
            if self.aborting or self.cancelled:
                return "is shutting down"
            self._coming += 1
            return None

    def arrived(self, task: Any) -> bool:
        """Add a child to its place (None: it could not be made); True if it must be cancelled."""
        with self._lock:
            self._coming -= 1
            if task is not None:
                self.tasks.add(task)
            return self.aborting

    def left(self, task: Any) -> bool:
        """Remove a child whose end the parent notes; False if it was noted before."""
        with self._lock:
            if task not in self.tasks:
                return False
            self.tasks.discard(task)
            return True

    def begin_exit(self) -> bool:
        """Note that the parent waits for the rest; False if none is left and none will join."""
        with self._lock:
            self._exiting = True
            return not self._is_over()

    def cancel(self) -> bool:
        """Accept no more children; True if the parent is in the block, and must be notified."""
        with self._lock:
            if self._is_over():
                return False
            self.cancelled = True
            return self.entered

    def is_over(self) -> bool:
        """Return whether the parent has no child left to wait for."""
        with self._lock:
            return self._is_over()

    def abort(self) -> list[Any]:
        """Accept no more children, and return those to be cancelled."""
        with self._lock:
            self.aborting = True
            return list(self.tasks)


def cancel_child(task: Any) -> None:
    """Cancel a child; a foreign task only in its loop's thread."""
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
        pass  # it has ended with its loop


class Ended:
    """A mailbox entry that reports the end of a child at the parent's home."""

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
        """Send the entry, in the thread where the child has ended."""
        parent = self._group._parent
        try:
            if isinstance(parent, Task):
                post_after(parent, self, parent._home)  # type: ignore[arg-type]
            elif parent is not None:
                parent.get_loop().call_soon_threadsafe(self._run)
        except RuntimeError:
            self._give_up()

    def _run(self) -> None:
        parent = self._group._parent
        if not isinstance(parent, Task) or parent.done():
            self._act()
        elif at_home(parent, self._act) is not None:
            self._heard(None)  # the parent has moved: follow it

    def _act(self) -> None:
        if self._child is None:
            self._group._look()
        else:
            self._group._child_ended(self._child)

    def _unrun(self) -> None:
        """Follow the parent, or give up: the home in whose mailbox it was has ended."""
        parent = self._group._parent
        if isinstance(parent, Task) and living_home(parent) is not None:
            self._heard(None)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Note the child's end, as the parent has ended with its home."""
        if self._child is not None:
            self._group._child_ended(self._child)


def cancel_group(group: TaskGroup, parent: Any) -> None:
    """Have the group cancelled at its parent's home; at once if that is the calling thread's."""
    if isinstance(parent, Task):
        home: AioContext = parent._home  # type: ignore[assignment]  # it runs: it has one
        if may_run_here(home):
            _Cancelled(group, parent)._run()
            return
        try:
            _Cancelled(group, parent).send(home)
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
        group._abort()  # the parent has ended with its loop; children at home elsewhere are left


class _Cancelled(Pursuer):
    """A cancellation of the group on its way to the parent, which it follows if that moves."""

    __slots__ = ("_group",)

    def __init__(self, group: TaskGroup, parent: Task[Any]) -> None:
        super().__init__(parent)
        self._group = group

    def _act(self) -> None:
        self._group._cancel_here()

    def _give_up(self) -> None:
        """Cancel the children, as the parent has ended with its home."""
        super()._give_up()
        self._group._abort()
