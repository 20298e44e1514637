"""The waiters of a queue: a homebound task, a foreign task, a thread. Each has its own wake-up.

A waiter is *granted* what it waits for before it is woken, so a wake-up carries no decision: a
waiter that is woken twice, late, or for another reason looks at `granted`.

A waiter whose home has ended can never run again. If the home ended before the wake-up, `wake`
returns False. If it ends after, a homebound task is abandoned, and tells its waiter. A foreign loop
tells nothing, but it drops the callbacks that it will not run, and `_Delivery` notices that.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any
from weakref import ref

from .._aio.tasks import running_loop, running_task
from .._core.cell import OneSuspension
from .._errors import ContextClosed
from .._os.parking import my_parker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._core.task import Task
    from .wait_queue import WaitQueue


# The threads that sleep in a wait queue. Each writes its own entry. A thread finds its entry gone
# if a signal handler that interrupted it has waited as well.
parked: dict[int, ThreadWaiter] = {}

# The waits of foreign tasks, by task, kept while a watch is on. Any thread writes, by single
# operations; `drop_ended_waits` drops those that are over.
foreign_waits: dict[Any, FutureWaiter] = {}


def drop_ended_waits() -> None:
    """Drop the foreign tasks' waits that are over. Called from: a thread that watches."""
    for task, waiter in foreign_waits.copy().items():
        if waiter.granted or waiter.left:
            foreign_waits.pop(task, None)


class Waiter:
    """A task or thread in a queue. `left` apart, its fields are written under the queue's guard."""

    __slots__ = ("error", "granted", "left", "queue", "value", "want")

    def __init__(self, queue: WaitQueue, want: Any) -> None:
        self.granted = False  # it has what it waits for; never reset
        self.left = False  # it will never run again, or has given up; set once
        self.error: BaseException | None = None  # raised by the wait once it is granted
        self.value: Any = None  # what it was granted, if that is an object
        self.queue = queue
        self.want = want  # what it waits for, if the queue has a choice

    @property
    def who(self) -> Any:
        """The task, a weak reference to a foreign one, or the thread's ident; None: unknown.

        Called from: any thread.
        """
        raise NotImplementedError

    def wake(self) -> bool:
        """Wake it, as it was granted; False if it can never run. Called from: any thread."""
        raise NotImplementedError

    def ask(self, pay: Callable[[], object]) -> None:
        """Have it call `pay` soon, if it can: see owed.py. Called from: any thread."""
        raise NotImplementedError

    def show(self) -> None:
        """Make it known which task waits, if it is not. Called from: the thread that waits."""


class TaskWaiter(OneSuspension, Waiter):
    """A homebound task in `suspend()`. The head of _core/cell.py explains the cell."""

    __slots__ = ("cell", "task")

    def __init__(self, queue: WaitQueue, want: Any, task: Task[Any]) -> None:
        super().__init__(queue, want)
        self.task = task
        # That of the suspension it waits in. Written under the guard, by the task, until granted.
        self.cell = task._cell  # as `rearm`, without a call: each lock that is not free comes here

    @property
    def who(self) -> Task[Any]:
        """The task."""
        return self.task

    def ask(self, pay: Callable[[], object]) -> None:
        """Have the task's home call it. Called from: any thread."""
        try:
            self.task.home.call_soon(pay)  # type: ignore[union-attr]
        except ContextClosed:
            pass  # it leaves

    def abandoned(self) -> None:
        """Leave the queue, as its home has ended. Called from: any thread."""
        self.queue._leave(self)


class FutureWaiter(Waiter):
    """A foreign task: it awaits a future of its own loop."""

    __slots__ = ("future", "loop", "who")

    def __init__(self, queue: WaitQueue, want: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(queue, want)
        self.loop = loop
        self.who: Any = None  # set while a watch is on
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        """Complete the future in its loop's thread. Called from: any thread."""
        if running_loop() is self.loop:
            self.deliver()
            return True
        delivery = _Delivery()
        try:
            delivery.waiter = self
            self.loop.call_soon_threadsafe(delivery)
        except BaseException as error:
            # Of a loop that is being closed the context is the first to refuse.
            closed = isinstance(error, RuntimeError) and self.loop.is_closed()
            if closed or isinstance(error, ContextClosed):
                return False
            delivery.waiter = None  # the repair makes another
            raise
        return True

    def ask(self, pay: Callable[[], object]) -> None:
        """Have its loop call it. Called from: any thread."""
        try:
            self.loop.call_soon_threadsafe(pay)
        except RuntimeError:
            pass  # the loop is closed

    def show(self) -> None:
        """Record it in `foreign_waits`."""
        task = running_task(self.loop)
        if task is not None:
            self.who = ref(task)
            foreign_waits[task] = self

    def deliver(self) -> None:
        """Complete the future. Called from: its loop's thread."""
        if not self.future.done():
            self.future.set_result(None)


class _Delivery:
    """A wake-up on its way to a foreign loop. If it is dropped uncalled, its waiter leaves."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: FutureWaiter | None = None

    def __call__(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.deliver()

    def __del__(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            waiter.queue._leave_unseen(waiter)


class ThreadWaiter(Waiter):
    """A thread that is no home."""

    __slots__ = ("parker", "timed", "who")

    def __init__(self, queue: WaitQueue, want: Any, *, timed: bool) -> None:
        super().__init__(queue, want)
        self.parker = my_parker()
        self.who: int = _thread.get_ident()
        self.timed = timed  # it has a timeout

    def wake(self) -> bool:
        """Unpark it. Called from: any thread."""
        self.parker.unpark()
        return True

    def ask(self, _pay: Callable[[], object]) -> None:
        """Unpark it: it pays before it parks again. Called from: any thread."""
        self.parker.unpark()
