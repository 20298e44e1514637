"""AioContext: an event loop, its mailbox, and the thread that is its home.

How others hand it something to run is the mailbox's business: `mailbox.py`. What wakes a home and
runs its tasks is the loop's: `guest_context.py` for loops of others (`attach`), `loop_context.py`
for our own.
"""

from __future__ import annotations

import _thread
from _thread import start_new_thread as start_thread
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from .._aio.tasks import (
    enter_task,
    leave_if_entered,
    leave_task,
    running_here,
    running_loop,
    unfinished,
)
from .._errors import ContextClosed, ContextError
from .._os.clock import Deadline
from .._os.process import AtFork, at_fork
from .._os.snapshot import members
from .big_lock import thread_name
from .chain import Chain
from .current import current_context, here
from .entries import BottomHalf, Posted, PostedWithArgs, was_emptied
from .loop_end import abandon, context_of
from .stand_in import StandIn

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from .._os.parking import Parker
    from .context_stats import ContextStats
    from .mailbox import Entry
    from .task import Task

_names = count(1)
contexts: WeakSet[AioContext] = WeakSet()  # all there are, for dump()


class AioContext(Chain):
    """An event loop, the mailbox of what is to run there, and the thread that is its home.

    Made by `run`, `IOThread` and `new_event_loop`; `attach` makes one for any asyncio loop.
    """

    # The Task class; set where it is defined, one layer up.
    task_type: ClassVar[type[Task[Any]]]
    # The class for loops of others; set where it is defined, likewise.
    guest_type: ClassVar[Callable[..., AioContext]]
    # A task factory that makes tasks at home on its loop; set where Task is defined.
    own_factory: ClassVar[Callable[..., Any]]

    _is_guest: ClassVar[bool]  # whether the loop is somebody else's
    # Its thread was asked to stop: it ends what is here, and takes no new task from others.
    _ending = False  # set once, by the home
    # How many seconds that may take, and when it is over; None: as long as it needs.
    _shutdown_timeout: float | None = None
    _end_by: Deadline | None = None  # written by the home
    _drained = False  # its tasks have ended: none may move here any more; set once, by the home

    name: str
    loop: asyncio.AbstractEventLoop

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str | None = None) -> None:
        super().__init__()
        self.loop = loop
        self.name = name or f"context-{next(_names)}"
        self._stand_in = StandIn(loop)
        self._home_ident: int | None = None  # of its home's thread; written by that
        self._closing = _thread.allocate_lock()  # taken once, by whoever closes it
        # The homebound task in whose step a task factory is at work. What that starts eagerly, of
        # whatever make, is the running task meanwhile; what it wakes runs when this one suspends.
        # Home only.
        self._outer: Task[Any] | None = None
        # How a task's step ends, for asyncio. In a forked process the context gets another. It is a
        # field since no Python specialises the look-up of a static method.
        self._leave_task = leave_task
        # Those who wait for futures of this loop from elsewhere, to be told at its end; of a loop
        # of our own. Home only; whoever takes one out answers it.
        self._far_waits: set[Any] = set()
        # Futures of calls that executors do for tasks here: `homebound.testing` takes who waits for
        # one to be busy. Written at home; others only ask whether it is empty.
        self._away: set[Any] = set()
        # Parkers of threads that wait for this context to get on; list operations are atomic.
        self._watchers: list[Parker] = []
        self._iterations = self._skipped = 0  # home only
        self._wakeups = self._coalesced = 0  # home only
        contexts.add(self)
        # None once it is closed, so that nothing refers in a circle.
        self._notice: BottomHalf | None = BottomHalf(self, self._look_again)
        self.workers: Any = None  # its WorkerPool, made at first use. Home only.

    @classmethod
    def attach(cls, loop: asyncio.AbstractEventLoop, *, tasks: bool = False) -> AioContext:
        """The context of any asyncio loop, made now if it has none: uvloop's, a GUI's, stock.

        The thread that runs the loop is its home. The process's main thread is the home of the main
        context, if there is none: `main_context()` is this one while the loop runs, and homebound's
        tasks and callbacks hold the big lock there as they run. On loops that are not homebound's,
        `poll`, nested waiting and inline entry under the big lock raise ContextError. Such a
        loop's `close` is covered on the instance, to tell those who wait for something there.
        With `tasks`, what `create_task` makes there from now on are homebound tasks, by a task
        factory of the loop (`loop.set_task_factory(None)` undoes that): asyncio.create_task, and
        all that Qt bindings start, can be woken and moved. Raises ContextClosed if the loop is
        closed and had no context, ContextError with `tasks` if it has a task factory.

        >>> import asyncio, homebound
        >>> async def main():
        ...     context = homebound.AioContext.attach(asyncio.get_running_loop())
        ...     return context is homebound.main_context()
        >>> asyncio.run(main())
        True

        Called from: any thread.
        """
        home = getattr(loop, "home", None)
        if isinstance(home, AioContext):
            context = home._itself()
        else:
            context = context_of(loop, cls.guest_type)
        if context is None:
            message = f"AioContext.attach: {loop!r} is closed, and had no context"
            raise ContextClosed(message)
        if context._is_guest and tasks:
            cls._make_tasks_of(loop)
        if context._is_guest and not context._closed:
            if running_loop() is loop:
                context._move_in()
            else:
                loop.call_soon_threadsafe(context._move_in)
        return context

    @classmethod
    def _make_tasks_of(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop of others make homebound tasks."""
        factory = loop.get_task_factory()
        if factory is None:
            loop.set_task_factory(cls.own_factory)
        elif factory is not cls.own_factory:
            message = (
                f"AioContext.attach(tasks=True): {loop!r} has a task factory, {factory!r}, which "
                "makes its tasks; have that one make a homebound.Task(coro, loop=loop)"
            )
            raise ContextError(message)

    def _itself(self) -> AioContext | None:
        """This context; of what stands for one whose loop is closed, the one it stands for."""
        return self

    def _end_begins(self) -> None:
        """Its end is asked for: its time runs from here. Home."""
        if self._end_by is None and self._shutdown_timeout is not None:
            self._end_by = Deadline(self._shutdown_timeout)

    def _end_is_over(self) -> bool:
        """Whether what has not ended by now is to be abandoned. Home."""
        return self._end_by is not None and self._end_by.over()

    async def _end_workers(self) -> None:
        """Shut its worker pool down, waiting for work in flight."""
        if self.workers is not None:
            await self.workers._end(self)

    def _enter_vacant(self) -> bool:
        """True if nobody is home, nor will be before `_leave`; loops of others never say."""
        return False

    def _leave(self) -> None:
        """After `_enter_vacant`."""

    def _move_in(self) -> None:
        """The calling thread runs the loop: it is the home."""
        raise NotImplementedError

    def _is_lived_in(self) -> bool:
        """Some thread runs the loop, or is about to: what is queued now will run."""
        raise NotImplementedError

    def is_home(self) -> bool:
        """True if tasks of this context may run in the calling thread: `current_context() is self`.

        Called from: any thread.
        """
        return current_context() is self

    # Posting.

    def spawn(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[Any]:
        """Make a task of `coro` at home here, and have it begin in the next iteration.

        `context` is the contextvars.Context it runs in; by default a copy of the caller's. Never
        runs in the caller's stack. Raises ContextClosed if the context has ended (and closes
        `coro`), TypeError if it is no coroutine.

        >>> import homebound
        >>> async def double(number):
        ...     return 2 * number
        >>> with homebound.IOThread("io0") as io:
        ...     homebound.block_on(io.context.spawn(double(21)))
        42

        Called from: any thread.
        """
        if self._ending and here.context is not self:
            # Not queued, it is no task of ours, which the home would cancel at this moment.
            self.task_type(coro, home=self, name=name)._abandon("was never started")
            self._refuse()
        task = self.task_type._queued(coro, self, name, context)
        try:
            self._post(task)
        except ContextClosed:
            task._abandon("was never started")
            raise
        return task

    def schedule(self, task: Task[Any]) -> None:
        """Have a suspended task entered in the next iteration; FIFO, never in the caller's stack.

        Its home is this context from now on. If it has not suspended yet, it is entered once it
        has. Raises AlreadyScheduled if somebody has promised to enter it already, NotSuspended if
        it has finished, ContextClosed if the context has ended.

        Called from: any thread.
        """
        if self._closed or (self._ending and here.context is not self):
            self._refuse()
        try:
            before = task._home
        except AttributeError:
            self._take_no_other(task, "schedule")
            raise
        cell = task._cell
        if task._claim(self):
            try:
                self._post(task)
            except ContextClosed:
                task._unclaim(before)
                raise
            except BaseException:  # it may be posted, or not
                try:
                    task._post_resumption(cell)
                except BaseException:  # noqa: BLE001  (no stack here: the first one is raised)
                    start_thread(task._post_resumption, (cell,))
                raise

    def enter(self, task: Task[Any]) -> None:
        """Run a suspended task: here and now if this thread may, else `schedule` it.

        Where this context is current and no task is running, it runs in this stack until it
        suspends; where one is running, when that one suspends or ends. Raises AlreadyScheduled,
        NotSuspended (it runs, or waits for something else, or is finished) or ContextClosed.

        Called from: any thread.
        """
        try:
            if current_context() is self:
                self._enter_here(task)
            else:
                self.schedule(task)
        except AttributeError:
            self._take_no_other(task, "enter")
            raise

    def _take_no_other(self, task: object, what: str) -> None:
        """What was to be entered failed us: say so if it is no task of ours."""
        if not isinstance(task, self.task_type):
            message = (
                f"AioContext.{what}() takes a homebound.Task, got {task!r}; "
                "AioContext.spawn makes one of a coroutine, AioContext.call_soon calls a function"
            )
            raise TypeError(message) from None

    def _enter_here(self, task: Task[Any]) -> None:
        if self._closed:
            self._refuse()
        if self._stand_in.lent and here.home is self:  # not may_run_here: see there
            # A signal handler, in that wait. Somebody may stand in now: nothing runs here.
            self.schedule(task)
            return
        if not task._claim_at_home(self):
            return  # it runs elsewhere, and comes when it suspends
        running = running_here(self.loop)
        if type(running) is self.task_type or (running is not None and self._outer is not None):
            self._woken.append(task)
        elif running is None:
            self._more += 1
            self._run_now(task)
        else:  # a task that is not ours cannot have ours run inside it
            self._post(task)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Posted:
        """Have `callback(*args)` called at home in the next iteration; returns a handle to cancel.

        It runs in a copy of the caller's contextvars. Raises ContextClosed if it has ended.

        Called from: any thread.
        """
        if args:
            entry: Posted = PostedWithArgs()
            entry._args = args  # type: ignore[attr-defined]
        else:
            entry = Posted()
        entry._callback = callback
        entry._vars = copy_context() or None
        entry._cancelled = False
        try:
            self._ready.append(entry)
            if self._bell:
                self._ring(entry)
        except ContextClosed:
            raise
        except BaseException:  # its caller cannot cancel it
            entry._cancelled = True
            raise
        return entry

    def bottom_half(self, callback: Callable[[], object]) -> BottomHalf:
        """A callback of this context that any thread can schedule; see `BottomHalf`.

        Called from: any thread.
        """
        return BottomHalf(self, callback)

    def notify(self) -> None:
        """Make a sleeping poll, or the next one to sleep, look again; many calls cost one.

        Called from: any thread.
        """
        notice = self._notice
        if notice is not None and not self._closed:
            notice.schedule()

    def _look_again(self) -> None:
        self._skipped += 1  # being notified is nothing that ran
        self._tell_watchers()

    # Running.

    def _run_now(self, task: Task[Any]) -> None:
        """Run it in this stack. Home, or who stands in."""
        raise NotImplementedError

    def _may_begin_inside(self, context: Context | None) -> bool:  # noqa: ARG002  (see LoopContext)
        """Whether a new task may run its first step here and now; on loops of others, never."""
        return False

    def _begin_inside(self, task: Task[Any]) -> None:
        """Run the first step of a new task in the midst of whatever runs here."""
        raise NotImplementedError

    def _leave_running(self, task: Any) -> None:
        """Put aside the task that this thread runs here, of any make."""
        self._outer = None
        self._leave_task(self.loop, task)

    def _enter_again(self, task: Any) -> None:
        """Go on with a task after `_leave_running`."""
        enter_task(self.loop, task)

    def _report(self, entry: Entry | None, error: BaseException) -> None:
        """An entry raised: tell the loop's exception handler, and go on."""
        if was_emptied(error):
            return
        self.loop.call_exception_handler(
            {"message": f"Exception in {entry!r} of {self!r}", "exception": error}
        )

    def _woken_by_post(self, posts: int) -> None:
        self._wakeups += 1
        self._coalesced += max(0, posts - 1)

    def _tell_watchers(self) -> None:
        """Have the threads that wait for progress of this context look again."""
        for parker in tuple(self._watchers):
            parker.unpark()

    def poll(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  (as in the contract)
        """Run one iteration of the loop; True if something ran.

        With `blocking`, sleep until there is something, or until `notify`; the big lock is let go
        meanwhile. Callable from inside a running task. Raises WrongThread anywhere but at home,
        ContextError on a loop that is not homebound's; CancelledError if the task that it is called
        in is cancelled meanwhile, as the end of the loop does.

        Called from: big lock or home.
        """
        raise NotImplementedError

    # Telling.

    def stats(self) -> ContextStats:
        """What the context has done and has to do, as a frozen record.

        Called from: any thread.
        """
        # Loaded at its first use: a dataclass costs 2 ms, most of it the module `dataclasses`.
        from .context_stats import ContextStats  # noqa: PLC0415

        return ContextStats(
            name=self.name,
            iterations=self._iterations,
            entered=self._iterations + self._more,
            wakeups=self._wakeups,
            coalesced=self._coalesced,
            ready=len(self._ready),
            tasks=len(self._tasks()),
            closed=self._closed,
        )

    def _tasks(self) -> list[Task[Any]]:
        """The unfinished tasks at home here."""
        # One that is done leaves the books a moment later, when others may know it by its result.
        return [
            task for task in unfinished(self.task_type) if task._home is self and not task.done()
        ]

    def _close(self) -> None:
        """Nothing runs here any more: refuse what comes, tell whom what is left concerns."""
        if not self._closing.acquire(blocking=False):
            return
        self._shut()
        for task in self._tasks():
            # One that is suspended may have been claimed for another context: it goes on there.
            # One that is not, nor waits, is on its way here: refused, it goes on where it was.
            if task._claimed_by_closer() if task._parked else task._fut_waiter is not None:
                task._abandon("ended with it")
        abandon(self._far_waits)
        self._notice = None
        if self.workers is not None:  # its home has waited for them, unless somebody else closes it
            self.workers.shutdown(wait=False)
        self._tell_watchers()

    def _end_in_child(self) -> None:
        super()._end_in_child()
        self._closing.acquire(blocking=False)  # there is nobody left to tell
        self._home_ident = None
        self._watchers = []
        self._far_waits = set()
        self._leave_task = leave_if_entered
        self._stand_in.lent = False

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<AioContext {self.name!r}{state}>"


def every_context() -> list[AioContext]:
    """All there are, closed ones too, whatever other threads make or drop meanwhile."""
    return members(contexts)


def _begin_as_child() -> None:
    """The parent's contexts have ended in a forked process; it may make its own."""
    for context in every_context():
        if not context._closed:
            context._end_in_child()


at_fork(AtFork.CONTEXTS, _begin_as_child)


def whereabouts() -> str:
    """The calling thread and its current context, for messages."""
    context = current_context()
    there = "no current context" if context is None else f"current context {context.name!r}"
    return f"thread {thread_name(_thread.get_ident())} ({there})"
