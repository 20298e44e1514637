"""Those who wait in a queue: a task of ours, a task of asyncio's, a thread. Each knows its wake-up.

A waiter is *granted* what it waits for before it is woken, so waking is only telling: one that is
told twice, late, or for another reason looks at `granted` and knows.

Whether a waiter can still come is found out in two ways. Its home has ended before the wake-up:
`wake` says False. It ends after: a task of ours is abandoned, and tells its waiter so; of other
loops we are told nothing, but they drop the callbacks that they will not run, and `_Delivery`
notices being dropped.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop
from .._core.cell import OneSuspension
from .._os.parking import my_parker
from .._os.process import AtFork, at_fork

if TYPE_CHECKING:
    import asyncio

    from .._core.task import Task
    from .wait_queue import WaitQueue


# The threads that sleep until they are granted something. Each writes its own entry; one that finds
# it gone was interrupted, in a signal handler that waited as well.
parked: dict[int, ThreadWaiter] = {}
at_fork(AtFork.PARKED, parked.clear)


class Waiter:
    """One who waits. The first three fields are written under the guard of the queue."""

    __slots__ = ("error", "granted", "left", "queue", "value", "want")

    def __init__(self, queue: WaitQueue, want: Any) -> None:
        self.granted = False  # it has what it waits for; nobody takes that back
        self.left = False  # it will not come for it; True once, whoever finds it out
        self.error: BaseException | None = None  # instead: to be raised where it waits
        self.value: Any = None  # what it was given, if that is a thing
        self.queue = queue
        self.want = want  # what it waits for, where there is a choice

    @property
    def who(self) -> Any:
        """The task, a weak reference to one that is not ours, or the thread's ident; None: unknown.

        Called from: any thread.
        """
        raise NotImplementedError

    def wake(self) -> bool:
        """Tell it that it is granted; False if it can never come. Called from: any thread."""
        raise NotImplementedError


class TaskWaiter(OneSuspension, Waiter):
    """A task of ours, in `suspend()`. See the head of _core/task.py for the cell."""

    __slots__ = ("cell", "task")

    def __init__(self, queue: WaitQueue, want: Any, task: Task[Any]) -> None:
        super().__init__(queue, want)
        self.task = task
        self.cell = task._cell  # as `rearm`, without a call: each lock that is not free comes here

    @property
    def who(self) -> Task[Any]:
        """The task."""
        return self.task

    def abandoned(self) -> None:
        """Its home has ended. Called from: any thread."""
        self.queue._leave(self)


class FutureWaiter(Waiter):
    """A task that is not ours: it awaits a future of its own loop."""

    __slots__ = ("future", "loop", "who")

    def __init__(self, queue: WaitQueue, want: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(queue, want)
        self.loop = loop
        self.who: Any = None  # set where somebody watches; see _debug/holders.py
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        """Have the future done in its loop's thread. Called from: any thread."""
        if running_loop() is self.loop:
            self.deliver()
            return True
        try:
            self.loop.call_soon_threadsafe(_Delivery(self))
        except RuntimeError:
            return False  # it is closed
        return True

    def deliver(self) -> None:
        """In its loop's thread."""
        if not self.future.done():
            self.future.set_result(None)


class _Delivery:
    """A wake-up on its way to a loop of others. Dropped without being called, it goes back."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: FutureWaiter) -> None:
        self._waiter: FutureWaiter | None = waiter

    def __call__(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.deliver()

    def __del__(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            waiter.queue._leave_unseen(waiter)


class ThreadWaiter(Waiter):
    """A thread that is nobody's home."""

    __slots__ = ("parker", "timed", "who")

    def __init__(self, queue: WaitQueue, want: Any, *, timed: bool) -> None:
        super().__init__(queue, want)
        self.parker = my_parker()
        self.who: int = _thread.get_ident()
        self.timed = timed  # it ends by itself

    def wake(self) -> bool:
        """Unpark it. Called from: any thread."""
        self.parker.unpark()
        return True
