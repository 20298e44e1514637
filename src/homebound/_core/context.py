"""AioContext: an event loop, its mailbox, and the thread that is its home.

`mailbox.py` has how other threads post to it. How a home is woken and runs its tasks depends on the
loop: `guest_context.py` is for foreign loops (`attach`), `loop_context.py` for our own.
"""

from __future__ import annotations

import _thread
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar
from weakref import WeakSet

from .._aio.tasks import (
    enter_task,
    leave_if_entered,
    leave_task,
    running_here,
    running_loop,
    strike_out,
    unfinished,
)
from .._errors import ContextClosed
from .._os.arguments import hides_more
from .._os.clock import Deadline
from .._os.process import AtFork, at_fork
from .._os.snapshot import members
from .big_lock import shown_thread
from .chain import Chain
from .coroutines import no_task, one_coroutine
from .current import current_context, here
from .entries import BottomHalf, Posted, PostedWithArgs, reason
from .foreign_loops import abandon, check_loop, context_of, make_tasks_of, no_bare_context
from .put_back import was_emptied
from .stand_in import StandIn

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from .._os.parking import Parker
    from .context_stats import ContextStats
    from .mailbox import Entry
    from .task import Task

T = TypeVar("T")

_names = count(1)
contexts: WeakSet[AioContext] = WeakSet()  # all contexts, for dump()


class AioContext(Chain):
    """An event loop, the mailbox of what is to run there, and the thread that is its home.

    `run`, `IOThread` and `new_event_loop` make one; `attach` makes one for any asyncio loop.
    """

    _over = False  # set by the thread that closes it, in the end
    task_type: ClassVar[type[Task[Any]]]  # the Task class; set where it is defined, one layer up
    # The class for foreign loops; set where it is defined, one layer up.
    guest_type: ClassVar[Callable[..., AioContext]]
    # A task factory that makes tasks at home on its loop; set where Task is defined.
    own_factory: ClassVar[Callable[..., Any]]

    _is_guest: ClassVar[bool]  # whether the loop is a foreign one
    _refusing = False  # new tasks of other threads; set once, by a thread that asks it to end
    _ending = False  # it ends its tasks, as its thread was asked to stop; set once, by the home
    # How many seconds that may take (None: as long as it needs), and the end of that time.
    _shutdown_timeout: float | None = None
    _end_by: Deadline | None = None  # written by the home
    _drained = False  # its tasks have ended: no task may move to it any more; set once, by the home

    name: str
    loop: asyncio.AbstractEventLoop

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str | None = None) -> None:
        if type(self) is AioContext:
            raise no_bare_context()
        super().__init__()
        self.loop = loop
        self.name = name or f"context-{next(_names)}"
        self._stand_in = StandIn(loop)
        self._home_ident: int | None = None  # the home thread's; written by that thread
        # The homebound task in whose step a task factory is called. A task that the factory starts
        # eagerly, homebound's or not, is the running task meanwhile; the tasks that it wakes run
        # when the outer one suspends. Home only.
        self._outer: Task[Any] | None = None
        # The function that tells asyncio that a task's step has ended; another one in a forked
        # process. A field, because no Python specialises the look-up of a static method.
        self._leave_task = leave_task
        # The waits for futures of this loop from other homes, to be answered at its end (for a
        # foreign loop, see LoopEnd). Home only; what takes a wait out answers it.
        self._far_waits: set[Any] = set()
        # Futures of calls that executors make for its tasks: `homebound.testing` counts a task that
        # waits for one as busy. Written at home; other threads only look whether it is empty.
        self._away: set[Any] = set()
        # Tasks that it keeps alive while no thread runs its loop, and some that are done or have
        # left: resting.py. Written by a thread that keeps others out.
        self._resting: set[Any] = set()
        # Parkers of threads that wait for progress of this context; list operations are atomic.
        self._watchers: list[Parker] = []
        self._iterations = self._skipped = 0  # home only
        self._wakeups = self._coalesced = 0  # home only
        contexts.add(self)
        # None once it is closed, which breaks a reference cycle.
        self._notice: BottomHalf | None = BottomHalf(self, self._look_again)
        self.workers: Any = None  # its WorkerPool, made at first use. Home only.

    @classmethod
    def attach(cls, loop: asyncio.AbstractEventLoop, *, tasks: bool = False) -> AioContext:
        """Return the context of an asyncio loop (uvloop, a GUI's, stock), made now if it has none.

        The thread that runs the loop is its home. If that is the process's main thread, and there
        is no main context, this is the main context while the loop runs: homebound's tasks and
        callbacks hold the big lock there as they run. On loops that are not homebound's, `poll`,
        nested waiting and inline entry under the big lock raise ContextError, and `close` is
        replaced on the instance, to notify what waits for something there. With `tasks`,
        `create_task` makes homebound tasks there from now on, by a task factory
        (`loop.set_task_factory(None)` undoes that): the tasks of asyncio.create_task, and those
        that Qt bindings start, can be woken and moved. Raises ContextClosed if the loop is closed
        and had no context, ContextError with `tasks` if it has a task factory.

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
            check_loop("AioContext.attach takes", loop)
            context = context_of(loop, cls.guest_type)
        if context is None:
            message = f"AioContext.attach: {loop!r} is closed, and had no context"
            raise ContextClosed(message)
        if context._is_guest and tasks:
            make_tasks_of(loop, cls.own_factory)
        if context._is_guest and not context._closed:
            if running_loop() is loop:
                context._move_in()
            else:
                loop.call_soon_threadsafe(context._move_in)
        return context

    def _itself(self) -> AioContext | None:
        """Return this context; an epitaph returns the closed context that it stands for."""
        return self

    def _end_begins(self) -> None:
        """Begin the time that its end may take. Home."""
        if self._end_by is None and self._shutdown_timeout is not None:
            self._end_by = Deadline(self._shutdown_timeout)

    def _end_is_over(self) -> bool:
        """Return whether the time for its end is over, and what is left is abandoned. Home."""
        return self._end_by is not None and self._end_by.over()

    async def _end_workers(self) -> None:
        """Shut its worker pool down, waiting for work in flight."""
        if self.workers is not None:
            await self.workers._end(self)

    def _occupy(self) -> bool:
        """Act for the home if no thread is, until `_vacate`; False if one is, or may be."""
        return False

    def _vacate(self) -> None:
        """End what `_occupy` began."""

    def _move_in(self) -> None:
        """Make the calling thread, which runs the loop, the home."""
        raise NotImplementedError

    def _is_lived_in(self) -> bool:
        """Return whether a thread runs the loop, or is about to: what is queued now will run."""
        raise NotImplementedError

    def is_home(self) -> bool:
        """Return True if this context is current in the calling thread.

        The same as `current_context() is self`.

        Called from: any thread.
        """
        return current_context() is self

    # Posting.

    @hides_more
    def spawn(
        self,
        coro: Coroutine[Any, Any, T],
        *more: Never,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a task of `coro` at home in this context; it begins in the next iteration.

        `context` is the contextvars.Context it runs in; by default a copy of the caller's. It never
        runs in the caller's stack. Raises ContextClosed if the context has ended (and closes
        `coro`), TypeError if `coro` is no coroutine.

        >>> import homebound
        >>> async def double(number):
        ...     return 2 * number
        >>> with homebound.IOThread("io0") as io:
        ...     homebound.block_on(io.context.spawn(double(21)))
        42

        Called from: any thread.
        """
        if more:
            raise one_coroutine("spawn", coro, more)
        if self._refusing and here.context is not self:
            # Made without being queued: the home, which cancels its tasks now, does not know it.
            self.task_type(coro, home=self, name=name)._abandon("was never started")
            self._refuse()
        task = self.task_type._queued(coro, self, name, context)
        try:
            self._post(task)
        except ContextClosed:
            task._abandon("was never started")
            raise
        except BaseException:  # it may be posted, or not
            task._begin_surely()
            raise
        return task

    def schedule(self, task: Task[Any]) -> None:
        """Have a suspended task entered in the next iteration; FIFO, never in the caller's stack.

        Its home is this context from now on. If it has not suspended yet, it is entered once it
        has. Raises AlreadyScheduled if it has already been woken, scheduled or entered,
        NotSuspended if it has finished, ContextClosed if the context has ended.

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
                except BaseException:  # noqa: BLE001  (surely.py)
                    _thread.start_new_thread(task._post_resumption, (cell,))
                raise

    def enter(self, task: Task[Any]) -> None:
        """Run a suspended task at once, if the calling thread may; else `schedule` it.

        If this context is current and no task is running, the task runs in the caller's stack until
        it suspends; if one is running, when that one suspends or ends. Raises AlreadyScheduled,
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
        """Raise TypeError if `task`, which could not be entered, is no homebound Task."""
        if not isinstance(task, self.task_type):
            raise no_task(f"AioContext.{what}()", task) from None

    def _enter_here(self, task: Task[Any]) -> None:
        if self._closed:
            self._refuse()
        if self._stand_in.lent and here.seat.home is self:  # not may_run_here: see there
            # In a signal handler, in the home's sleep. A stand-in may be at work: run nothing.
            self.schedule(task)
            return
        cell = task._cell
        if not task._claim_at_home(self):
            return  # it runs in another thread, and is posted here when it suspends
        try:
            running = running_here(self.loop)
            if type(running) is self.task_type or (running is not None and self._outer is not None):
                self._woken.append(task)
            elif running is None:
                self._more += 1
                self._run_now(task)
            else:  # a task of ours cannot run inside a foreign task
                self._post(task)
        except BaseException:
            # Not begun: a step takes another cell. Nor woken: a chain runs it.
            if task._cell is cell and task not in self._woken:
                try:
                    task._post_resumption(cell)
                except BaseException:  # noqa: BLE001  (surely.py)
                    _thread.start_new_thread(task._post_resumption, (cell,))
            raise

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Posted:
        """Have `callback(*args)` called at home in the next iteration; return a handle to cancel.

        It runs in a copy of the caller's contextvars. Raises ContextClosed if the context has
        ended.

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
        """Return a callback of this context that any thread can schedule; see `BottomHalf`.

        Called from: any thread.
        """
        return BottomHalf(self, callback)

    def notify(self) -> None:
        """Have a sleeping poll, or the next one to sleep, look again; a burst costs one ring.

        Called from: any thread.
        """
        notice = self._notice
        if notice is not None and not self._closed:
            notice.schedule()

    def _look_again(self) -> None:
        self._skipped += 1  # a notification does not count as something that ran
        self._tell_watchers()

    # Running.

    def _run_now(self, task: Task[Any]) -> None:
        """Run one step of the task in this stack. Home, or its stand-in."""
        raise NotImplementedError

    def _may_begin_inside(self, context: Context | None) -> bool:  # noqa: ARG002  (see LoopContext)
        """Return whether a new task may run its first step in the caller's stack now.

        Never on a foreign loop.
        """
        return False

    def _begin_inside(self, task: Task[Any]) -> None:
        """Run the first step of a new task inside whatever runs in this thread."""
        raise NotImplementedError

    def _leave_running(self, task: Any) -> None:
        """Put aside the task that runs in this thread, homebound's or not."""
        self._outer = None
        self._leave_task(self.loop, task)

    def _enter_again(self, task: Any) -> None:
        """Go on with a task after `_leave_running`."""
        enter_task(self.loop, task)

    def _report(self, entry: Entry | None, error: BaseException) -> None:
        """Pass an exception of an entry to the loop's exception handler, and go on."""
        if was_emptied(error):
            return
        what = f"Exception in {entry!r} of {self!r}"
        self.loop.call_exception_handler({"message": what, "exception": reason(entry, error)})

    def _woken_by_post(self, posts: int) -> None:
        self._wakeups += 1
        self._coalesced += max(0, posts - 1)

    def _tell_watchers(self) -> None:
        """Have the threads that wait for progress of this context look again."""
        for parker in tuple(self._watchers):
            parker.unpark()

    def poll(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  (as in the contract)
        """Run one iteration of the loop; return True if something ran.

        With `blocking`, sleep until there is something to run, or until `notify`; the big lock is
        released meanwhile. It may be called inside a running task. Raises WrongThread anywhere but
        at home, ContextError on a loop that is not homebound's, CancelledError if the task in which
        it is called is cancelled meanwhile, as the end of the loop does.

        Called from: big lock or home.
        """
        raise NotImplementedError

    # State.

    def stats(self) -> ContextStats:
        """Return a frozen record of what the context has done and has to do.

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

    def _tasks(self, *, done: bool = False) -> list[Task[Any]]:
        """Return the unfinished tasks at home here; `done`: and all still recorded."""
        found = {*unfinished(self.task_type), *self._resting.copy()}
        return [task for task in found if task._home is self and (done or not task.done())]

    def _close(self) -> None:
        """Refuse every post from now on, and abandon what is left. Again, if it was interrupted."""
        ident = _thread.get_ident()
        # Idents: the first thread closes it. Made now: more attributes make each slower to read.
        closers: list[int] = self.__dict__.setdefault("_closers", [])
        closers.append(ident)
        if closers[0] != ident or self._over:
            return
        self._shut()
        for task in self._tasks(done=True):
            # A suspended task may be claimed for another context, and goes on there; one that is
            # neither that nor waits is on its way here, is refused, and goes on where it was.
            if task._claimed_by_closer() or task.done():
                task._abandon("ended with it")
        self._resting.clear()
        abandon(self._far_waits)
        self._notice = None
        if self.workers is not None:  # the home has waited for them, unless another thread closes
            self.workers.shutdown(wait=False)
        self._tell_watchers()
        self._over = True

    def _end_in_child(self) -> None:
        super()._end_in_child()
        self._over = True  # no waiter is left to notify
        self._home_ident = None
        self._watchers = []
        self._far_waits = set()
        strike_out(list(self._resting))
        self._leave_task = leave_if_entered
        self._stand_in.lent = False

    def __repr__(self) -> str:
        return f"<AioContext {self.name!r}{' closed' if self._closed else ''}>"


def every_context() -> list[AioContext]:
    """Return all contexts, closed ones too; other threads may make or drop some meanwhile."""
    return members(contexts)


def _begin_as_child() -> None:
    """End the parent's contexts in a forked process, which may make its own."""
    for context in every_context():
        if not context._closed:
            context._end_in_child()


at_fork(AtFork.CONTEXTS, _begin_as_child)


def whereabouts() -> str:
    """Return the calling thread and its current context, for messages."""
    context = current_context()
    there = "no current context" if context is None else f"current context {context.name!r}"
    return f"thread {shown_thread(_thread.get_ident())} ({there})"
