"""AioContext: an event loop, its mailbox, and the thread that is its home.

This class needs nothing of the loop but asyncio's public interface, so it works over loops of
others (`attach`); `_home.py` has the faster and re-entrant one of our own loops.

The mailbox is the deque `_ready`. Its protocol, on every loop:

    producer, any thread:  append, then look at `_bell`; if it is up: take it, and wake the home
    consumer, the home:    put up a new bell, pass through the deque's lock, then look a last time

so a burst of posts to a sleeping home costs one wake, and posts to one that is awake cost none; see
`_bell.py`. Model: tests/model/bell.pml.
"""

from __future__ import annotations

import _thread
from collections import deque
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet

from ._asyncio_private import alive, running_loop, running_task
from ._bell import CLOSED, new_bell
from ._biglock import thread_name
from ._context_stats import ContextStats
from ._current import current_context, here, set_home
from ._entry import BottomHalf, Posted
from ._errors import ContextClosed, ContextError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from ._park import Parker
    from ._task import Task

REPEATS = 64  # how often tasks may be run again in one chain of wake-ups before the loop looks up

_names = count(1)
contexts: WeakSet[AioContext] = WeakSet()  # all there are, for dump()
_attached: WeakKeyDictionary[Any, AioContext] = WeakKeyDictionary()
_attaching = _thread.allocate_lock()  # guards _attached


class AioContext:
    """An event loop, the mailbox of what is to run there, and the thread that is its home.

    Made by `run`, `IOThread` and `new_event_loop`; `attach` makes one for any asyncio loop.
    """

    # The Task class; set where it is defined, one layer up.
    task_type: ClassVar[type[Task[Any]]]

    _is_guest: ClassVar[bool] = True  # the loop is somebody else's
    _forked = False  # it was a parent process's; set in the child, which has but one thread then

    name: str
    loop: asyncio.AbstractEventLoop

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str | None = None) -> None:
        self.loop = loop
        self.name = name or f"context-{next(_names)}"
        # Any thread appends; the home (or its stand-in) alone pops.
        self._ready: deque[Any] = deque()
        # AWAKE, or the bell of the sleep that goes on, or CLOSED. Written by the home, and by
        # who stands in for it under the big lock. Falsy means: nothing to do for a producer.
        self._bell: Any = new_bell()
        self._home_ident: int | None = None  # of its home's thread; written by that
        # Its thread was asked to stop: it ends what is here, and takes nothing new from others.
        self._ending = False  # set once, by the home
        self._closing = _thread.allocate_lock()  # taken once, by whoever closes it
        self._closed = False  # set once, by the home's thread
        # Tasks woken by the task that runs now, and what is left of the chain it belongs to
        # (None: no chain is being run). Home only.
        self._woken: list[Task[Any]] = []
        self._chain: deque[Task[Any]] | None = None
        # Those who wait for futures of this loop from elsewhere, to be told at its end. Home only.
        self._far_waits: set[Any] = set()
        # Parkers of threads that wait for this context to get on; list operations are atomic.
        self._watchers: list[Parker] = []
        self._iterations = self._entered = self._skipped = 0  # home only
        self._wakeups = self._coalesced = 0  # home only
        contexts.add(self)
        self._notice = BottomHalf(self, self._look_again)
        self.workers: Any = None  # its WorkerPool, made at first use. Home only.

    @classmethod
    def attach(cls, loop: asyncio.AbstractEventLoop) -> AioContext:
        """The context of any asyncio loop, made now if it has none: uvloop's, a GUI's, stock.

        The thread that runs the loop is its home. On loops that are not homebound's, `poll`,
        nested waiting and inline entry under the big lock raise ContextError.

        Called from: any thread.
        """
        home = getattr(loop, "home", None)
        if isinstance(home, AioContext):
            return home
        with _attaching:
            context = _attached.get(loop)
            if context is None:
                context = _attached[loop] = AioContext(loop)
        if running_loop() is loop:
            context._move_in()
        else:
            loop.call_soon_threadsafe(context._move_in)
        return context

    @classmethod
    def _attach_here(cls, loop: asyncio.AbstractEventLoop, name: str) -> AioContext:
        """`attach`, in the thread that is about to run the loop."""
        with _attaching:
            context = _attached[loop] = AioContext(loop, name)
        context._move_in()
        return context

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
        if here.home is not self:
            set_home(self)
            self._home_ident = _thread.get_ident()

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
        task = self.task_type(coro, home=self, name=name, context=context)
        if self._ending and here.context is not self:
            task._abandon("was never started")
            self._refuse()
        task._begin_queued()
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
        before = task._home
        if task._claim(self):
            try:
                self._post(task)
            except ContextClosed:
                task._unclaim(before)
                raise

    def enter(self, task: Task[Any]) -> None:
        """Run a suspended task: here and now if this thread may, else `schedule` it.

        Where this context is current and no task is running, it runs in this stack until it
        suspends; where one is running, when that one suspends or ends. Raises AlreadyScheduled,
        NotSuspended (it runs, or waits for something else, or is finished) or ContextClosed.

        Called from: any thread.
        """
        if current_context() is self:
            self._enter_here(task)
        else:
            self.schedule(task)

    def _enter_here(self, task: Task[Any]) -> None:
        if self._closed:
            self._refuse()
        if not task._claim_at_home(self):
            return  # it runs elsewhere, and comes when it suspends
        running = running_task(self.loop)
        if running is None:
            self._entered += 1
            self._run_now(task)
        elif running.__class__ is self.task_type:
            self._woken.append(task)
        else:  # a task that is not ours cannot have ours run inside it
            self._post(task)

    def _run_now(self, task: Task[Any]) -> None:
        if running_loop() is not self.loop:  # it has stopped
            self._post(task)
            return
        try:
            task._run()
        finally:
            self._ring_for_own()

    def _ring_for_own(self) -> None:
        """What the home has queued for itself has rung nothing."""
        if self._ready and self._bell:
            self._ring(None)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Posted:
        """Have `callback(*args)` called at home in the next iteration; returns a handle to cancel.

        It runs in a copy of the caller's contextvars. Raises ContextClosed if it has ended.

        Called from: any thread.
        """
        entry = Posted()
        entry._callback = callback
        entry._args = args
        entry._vars = copy_context()
        entry._cancelled = False
        self._ready.append(entry)
        if self._bell:
            self._ring(entry)
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
        if not self._closed:
            self._notice.schedule()

    def _look_again(self) -> None:
        self._skipped += 1  # being notified is nothing that ran
        self._tell_watchers()

    def _post(self, entry: Any) -> None:
        """Put an entry into the mailbox: append first, then look (pairs with the home's sleep)."""
        self._ready.append(entry)
        if self._bell:
            self._ring(entry)

    def _ring(self, entry: Any) -> None:
        """Wake the home, having posted `entry` and seen the bell; or refuse if it is closed."""
        bell = self._bell
        if bell is CLOSED:
            self._take_back(entry)
            return
        try:
            bell.pop()
        except (IndexError, AttributeError):
            return  # somebody else rings it, or the home has woken by itself
        self._wake_home(entry)

    def _wake_home(self, entry: Any) -> None:
        if running_loop() is self.loop:
            self.loop.call_soon(self._run_batch)
            return
        try:
            self.loop.call_soon_threadsafe(self._run_batch)
        except RuntimeError:  # the loop was closed without our being told
            try:
                self._take_back(entry)  # first: the closer drops what it finds, and tells nobody
            finally:
                self._close()

    def _take_back(self, entry: Any) -> None:
        """The context is closed: whoever gets the entry out of the mailbox answers for it."""
        if entry is None:
            return
        try:
            self._ready.remove(entry)
        except ValueError:
            return  # the closer found it there and told whom it concerns
        self._refuse()

    def _refuse(self) -> None:
        message = f"{self!r} has ended: nothing can be scheduled, moved or spawned there any more"
        if self._forked:
            message = (
                f"{self!r} has ended: it was forked, its home is in the parent process; "
                "make a new one here, with homebound.run or an IOThread"
            )
        raise ContextClosed(message)

    # Running.

    def _run_batch(self) -> None:
        """Run what is in the mailbox now: one iteration's worth, on a loop of others."""
        self._bell = (
            new_bell()
        )  # before counting, as a home that goes to sleep: nothing is overlooked
        self._ready.rotate(0)
        self._move_in()
        ready = self._ready
        batch = len(ready)
        self._iterations += 1
        self._entered += batch
        self._woken_by_post(batch)
        try:
            while batch:
                batch -= 1
                entry = ready.popleft()
                if not entry._cancelled:
                    try:
                        entry._run()
                    except Exception as error:  # noqa: BLE001
                        self._report(entry, error)
        finally:
            self._ring_for_own()
        self._tell_watchers()

    def _run_chain(self) -> None:
        """Run those whom the task that just suspended or ended has woken, depth first.

        No recursion: a chain of any length is this one loop. No starvation: a task may come again
        in the same chain, but after REPEATS of that the rest goes to the mailbox, so that timers,
        sockets and other tasks have their iteration.
        """
        woken = self._woken
        self._chain = chain = deque(woken)
        woken.clear()
        seen: set[Task[Any]] = set()
        repeats = 0
        try:
            while chain:
                task = chain.popleft()
                if task in seen:
                    repeats += 1
                    if repeats > REPEATS:
                        chain.appendleft(task)
                        break
                seen.add(task)
                self._entered += 1
                task._run()
                if woken:
                    chain.extendleft(reversed(woken))
                    woken.clear()
        finally:
            self._chain = None
            if woken or chain:
                self._ready.extend(woken)
                self._ready.extend(chain)
                woken.clear()

    def _report(self, entry: Any, error: BaseException) -> None:
        """An entry raised: tell the loop's exception handler, and go on."""
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

    def _stand_in_begins(self) -> None:
        """A thread that is no home took the big lock: on a loop of others that changes nothing."""

    def _stand_in_ends(self) -> None:
        """It is about to let the big lock go."""

    def poll(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  (as in the contract)
        """Run one iteration of the loop; True if something ran.

        With `blocking`, sleep until there is something, or until `notify`; the big lock is let go
        meanwhile. Callable from inside a running task. Raises WrongThread anywhere but at home,
        ContextError on a loop that is not homebound's.

        Called from: big lock or home.
        """
        raise self._cannot(f"poll(blocking={blocking})")

    def _cannot(self, what: str) -> ContextError:
        kind = type(self.loop).__module__ + "." + type(self.loop).__qualname__
        return ContextError(
            f"{what}: {self!r} is attached to a {kind}, which cannot be run from inside itself; "
            f"use a loop of homebound.new_event_loop(), or await instead of waiting"
        )

    # Telling.

    def stats(self) -> ContextStats:
        """What the context has done and has to do, as a frozen record.

        Called from: any thread.
        """
        return ContextStats(
            name=self.name,
            iterations=self._iterations,
            entered=self._entered,
            wakeups=self._wakeups,
            coalesced=self._coalesced,
            ready=len(self._ready),
            tasks=len(self._tasks()),
            closed=self._closed,
        )

    def _tasks(self) -> list[Task[Any]]:
        """The unfinished tasks at home here."""
        tasks = alive.copy()  # under the set's own lock, which tuple() does not take
        return [task for task in tasks if task.__class__ is self.task_type and task._home is self]

    def _close(self) -> None:
        """Nothing runs here any more: refuse what comes, tell whom what is left concerns."""
        if not self._closing.acquire(blocking=False):
            return
        self._closed = True
        self._bell = CLOSED  # for good: who posts from now on meets it after his append
        self._ready.rotate(0)
        self._drop_left()
        for task in self._tasks():
            # One that is suspended may have been claimed for another context: it goes on there.
            # One that is not, nor waits, is on its way here: refused, it goes on where it was.
            if task._claimed_by_closer() if task._parked else task._fut_waiter is not None:
                task._abandon("ended with it")
        for wait in tuple(self._far_waits):
            wait.abandon()
        self._tell_watchers()

    def _drop_left(self) -> None:
        """Tell whom the entries concern that will not run any more."""
        while self._ready:
            try:
                entry = self._ready.popleft()
            except IndexError:
                return  # its producer took it back
            if entry.__class__ is self.task_type:
                entry._abandon("ended with it")
            else:
                tell = getattr(entry, "_unrun", None)
                if tell is not None:
                    tell()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<AioContext {self.name!r}{state}>"


def every_context() -> list[AioContext]:
    """All there are, closed ones too, whatever other threads make or drop meanwhile."""
    # The copy of the set is one operation; iterating a WeakSet is not.
    references: set[Any] = contexts.data.copy()  # type: ignore[attr-defined]
    return [context for reference in references if (context := reference()) is not None]


def whereabouts() -> str:
    """The calling thread and its current context, for messages."""
    context = current_context()
    there = "no current context" if context is None else f"current context {context.name!r}"
    return f"thread {thread_name(_thread.get_ident())} ({there})"
