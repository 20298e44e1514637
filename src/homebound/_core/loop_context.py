"""The context of a loop of our own: it polls, nests, and lets other threads stand in."""

from __future__ import annotations

import _thread
import asyncio
import threading
import weakref
from _thread import start_new_thread as start_thread
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .._aio.generators import set_hooks
from .._aio.tasks import FORGETS_EAGER, running_loop, set_running_loop, task_here
from .._errors import ContextError, WrongThread
from .._os.greenlets import in_child_greenlet, refusal_in_child
from .._os.guard import new_guard
from .._os.no_copy import refuse_threaded_copy
from .._os.parking import SET, my_parker, write_signal
from .bell import AWAKE, CLOSED
from .big_lock import big_lock
from .context import AioContext, every_context, whereabouts
from .current import current_context, here, main, main_context, set_home, set_main
from .entries import Errand
from .loop import Loop
from .mailbox import KeptQueue
from .put_off import ends_of, must_end_waits
from .resting import rest, rouse
from .stand_in import StandIn, may_run_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .interrupt import Interrupt
    from .mailbox import Entry
    from .task import Task


class _Epitaph(AioContext):
    """The `home` of a closed loop, which refuses posts in the name of the closed context.

    A closed context refers to its loop. If the loop referred to the context, too, both would stay
    until the garbage collector runs, instead of going with the last reference to them.
    """

    _is_guest = False
    interrupt = None

    def __init__(self, context: LoopContext) -> None:
        # Not AioContext.__init__: no thread is its home.
        self._context = weakref.ref(context)
        self.name = context.name
        self._ready = context._ready  # a producer that has just posted withdraws its entry here
        self._aside = context._aside
        self._bell = CLOSED
        self._closed = True
        self._forked = context._forked
        self._far_waits = set()
        self._stand_in = StandIn(None)  # no thread sleeps on this loop any more

    def _ring(self, entry: Entry | None) -> None:
        self._withdraw(entry)

    def _itself(self) -> AioContext | None:
        return self._context()


class LoopContext(AioContext):
    """The context of a homebound loop."""

    _is_guest = False

    loop: Loop

    # Its io_uring, made by homebound.block once some requests have waited; False if it has none.
    # Home only, both.
    disk_ring: Any = None
    disk_waits = 0
    # The last Ctrl-C for which nested waits were ended; and whether it came before the call that
    # the main task is in. Home only.
    interrupt: Interrupt | None = None
    calls_late = False

    __reduce__ = refuse_threaded_copy

    def __init__(self, loop: Loop, name: str | None = None) -> None:
        _rest_where_idle()
        # Held by the home thread, or by a thread that acts for the home while there is none. Set
        # before others see this context: `_rest_where_idle` of the next loop tries it.
        self._key = new_guard()
        super().__init__(loop, name)
        loop.home = self
        self._ready = loop._ready
        self._bell = AWAKE
        self._signal = loop.signal

    # Home.

    @contextmanager
    def inhabit(self, *, as_main: bool = False) -> Iterator[None]:
        """Make the calling thread the home for a block.

        This becomes the main context with `as_main`, or if the process's main thread is the home
        and there is no main context.
        """
        # Asked for its effect: a thread whose foreign loop has stopped is no longer its home.
        current_context()
        before = here.seat.home
        if before is self:
            if self._stand_in.lent:
                self._stand_in.come_back()
            yield
            return
        if before is not None:
            message = (
                f"this thread is the home of {before.name!r} and cannot be that of {self.name!r} "
                "as well: `await` the other loop's work, or wait for it with block_on"
            )
            raise WrongThread(message)
        is_main = as_main or (
            main_context() is None and threading.current_thread() is threading.main_thread()
        )
        took = is_main and not here.seat.has_big_lock
        with self._key:
            try:
                set_home(self)
                self.loop.hear_here()
                if is_main:
                    self._become_main()
                self._home_ident = _thread.get_ident()
                rouse(self)
                yield
            finally:
                try:
                    self._move_out(took)
                except BaseException:  # a signal handler raised: go through all steps once more
                    self._move_out(took)
                    raise
                if not self._closed:
                    rest(self.task_type, self)

    def is_run_here(self) -> bool:
        """Return whether the calling thread is its home itself, not a stand-in."""
        return self._home_ident == _thread.get_ident()

    async def _end_workers(self) -> None:
        if self.disk_ring:
            await self.disk_ring.end()
        await super()._end_workers()

    def _move_out(self, took: bool) -> None:  # noqa: FBT001  (it took the big lock)
        """Make the calling thread no home any more; called again if any step was interrupted."""
        self._home_ident = None
        if main.context is self:
            set_main(None)
            self.loop.is_main = False
        self._stand_in.lent = False
        if took and here.seat.has_big_lock:
            big_lock._release_if_held()
        set_home(None)

    def _become_main(self) -> None:
        big_lock._make_ready()
        big_lock._reacquire()
        if main_context() is not None:
            message = (
                f"there is a main context already, {main.context.name!r}: use an IOThread for a "  # type: ignore[union-attr]
                "second loop, or block_on(coro) to run a coroutine in the main one"
            )
            raise ContextError(message)
        set_main(self)
        self.loop.is_main = True

    def _occupy(self) -> bool:
        return here.seat.home is not self and self._key.acquire(blocking=False)

    def _vacate(self) -> None:
        self._key.release()

    def _is_lived_in(self) -> bool:
        # Not `loop.is_running()`: the home thread runs the loop several times, with gaps between.
        return self._home_ident is not None

    def _ring(self, entry: Entry | None) -> None:
        bell = self._bell
        if bell is CLOSED:
            self._withdraw(entry)
            return
        signal = self._signal  # holds the descriptor open
        try:
            # In one call, in C: between taking the bell and ringing it no finaliser comes in. One
            # that waited for this home would find the bell taken, and wait for this frame.
            next(map(write_signal, (signal.written_fd,), iter(bell.pop, None)))
        except (IndexError, AttributeError):
            pass  # another producer rings it, or the home has woken by itself
        except BaseException:  # a signal handler raised, perhaps between taking it and ringing
            try:
                write_signal(signal.written_fd, SET)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(signal.set, ())
            raise

    def _close(self) -> None:
        """Close as AioContext does, but not during a stand-in's turn, as that writes the bell."""
        stand_ins = self._stand_in.turns and not here.seat.has_big_lock
        alone = self._key.acquire(timeout=1)  # a thread that acts for the home holds it briefly
        try:
            if stand_ins:
                big_lock._make_ready()
                big_lock._reacquire()
            ring, self.disk_ring = self.disk_ring, False
            if ring:
                ring.close()
            super()._close()
            self._hand_on_timers()
        finally:
            if alone:
                self._key.release()
            if stand_ins:
                big_lock._release_if_held()

    def set_aside(self) -> KeptQueue:
        """Return a queue for asyncio to empty as it closes the loop, in place of the mailbox."""
        self._signal = None  # type: ignore[assignment]
        self._aside = kept = KeptQueue()
        return kept

    def _end_in_child(self) -> None:
        super()._end_in_child()
        ring, self.disk_ring = self.disk_ring, False
        if ring:
            ring.leave_in_child()
        if self._key.acquire(blocking=False):  # it was free, or this thread was the home
            self._key.release()
        else:
            self._key = new_guard()
        self._signal = None  # type: ignore[assignment]
        self.loop.leave_in_child()
        self.loop.close_in_child(self._ready)

    def _epitaph(self) -> AioContext:
        """Return what the closed loop refers to in place of this context."""
        self.end_late_posts()
        return _Epitaph(self)

    def end_late_posts(self) -> None:
        """Undo what late_posts.py has put here and on the loop, in cycles. Any thread."""
        self.__dict__.pop("call_soon", None)
        self.loop.__dict__.pop("call_soon_threadsafe", None)

    # Running inside something else.

    def _run_now(self, task: Task[Any]) -> None:
        loop = self.loop
        before = running_loop()
        if before is loop:
            task._run()
            return
        hooks = loop.hear_of_generators()
        set_running_loop(loop)
        try:
            task._run()
        finally:
            set_running_loop(before)
            set_hooks(hooks)

    def call_in(self, outer: Task[Any], make: Callable[..., Any], *args: Any) -> Any:
        """Call a task factory in the step of `outer`; see `_outer`."""
        self._outer = outer
        try:
            return make(*args)
        finally:
            self._outer = None

    def _may_begin_inside(self, context: Context | None) -> bool:
        """Return whether a new task may run its first step at once: in its home's thread.

        Not before the loop runs, as with asyncio, and not in a signal handler that interrupts the
        home's wait, when others may stand in. Raises RuntimeError if `context` is already entered.
        """
        may = may_run_here(self) and self.loop.is_running()
        if may and isinstance(context, Context):
            context.run(int)
        return may

    def _begin_inside(self, task: Task[Any]) -> None:
        """Run the first step of a new task inside whatever runs in this thread."""
        self._more += 1
        self._run_inside(task, task_here(self.loop))
        if FORGETS_EAGER and task.done():
            task._body = None  # type: ignore[assignment]

    def _run_inside(self, task: Task[Any], outer: Any) -> None:
        """Run one step of `task` inside `outer`, this thread's running task; None if none runs.

        No other task runs inside: the tasks that it wakes run when the outer task suspends, like
        those that the outer one wakes.
        """
        if outer is None:
            self._run_now(task)
            return
        outermost, chained = self._outer, self._chained
        self._leave_running(outer)
        self._chained = True  # even if no chain runs: it leaves woken tasks to the outer task
        try:
            task._run()
        finally:
            self._enter_again(outer)
            self._outer, self._chained = outermost, chained
            ours = outermost is not None or type(outer) is self.task_type
            if not ours:  # a foreign task runs no woken tasks at its end
                self._end_chain()

    def poll(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002
        if current_context() is not self:
            message = (
                "AioContext.poll(): only its home may poll it"
                + (", or the thread that holds the big lock" if main.context is self else "")
                + f"; {self.name!r} was polled in {whereabouts()}"
            )
            raise WrongThread(message)
        if must_end_waits(self.loop):
            self._end_poll()
        ours = self._own_task_here()
        # A cancellation that is already pending is for what the task awaits next.
        if ours is None or ours._must_cancel:
            return self._turn(blocking=blocking)
        ran = self._turn(blocking=blocking)
        if ours._must_cancel:
            raise ours._to_throw()
        return ran

    poll.__doc__ = AioContext.poll.__doc__

    def _own_task_here(self) -> Task[Any] | None:
        """Return the task that runs in this thread on this loop, if it is homebound's."""
        task = task_here(self.loop)
        return task if type(task) is self.task_type else None

    def _end_poll(self) -> None:
        """Cancel the task that polls, once, for a stop or Ctrl-C; in a callback, raise."""
        outer, ours = task_here(self.loop), self._own_task_here()
        ends = ends_of(self.loop, outer)
        if ends is None:
            return
        cancel: Any = bool if ours is None else ours.cancel
        interrupted = outer is None or ends.end_wait(outer, cancel)
        ends.proceed(asked=interrupted)
        if interrupted:
            raise asyncio.CancelledError if ours is None else ours._to_throw()

    def _hand_on_timers(self) -> None:
        """Have the timers of tasks that have moved on, as those of asyncio.timeout, go on there."""
        for when, callback in self.loop.pending_timers():
            if isinstance(callback, Errand):
                callback.wait_at_home(when)

    def _turn(self, *, blocking: bool) -> bool:
        """Run one iteration inside whatever runs; return True if something ran."""
        state = self.begin_nested()
        try:
            skipped = self._skipped
            count = self.turn_once(blocking=blocking)
            return count > self._skipped - skipped
        finally:
            self.end_nested(state)

    def turn_once(self, *, blocking: bool) -> int:
        """Run one iteration between `begin_nested` and `end_nested`; return how many entries."""
        if self._closed:
            self._refuse()
        loop = self.loop
        if not blocking or here.seat.home is self:
            return loop.iterate(blocking=blocking)
        if not self._ready:
            parker = my_parker()
            self._watchers.append(parker)  # added before it sleeps: pairs with notify and kick
            try:
                self._stand_in.sleep(parker)
            finally:
                self._watchers.remove(parker)
        return 0 if self._closed else loop.iterate(blocking=False)

    def begin_nested(self) -> tuple[Any, ...]:
        """Put aside what runs now; the tasks that it has woken run in the nested iterations."""
        if running_loop() is self.loop and in_child_greenlet():
            raise refusal_in_child("what turns the loop (block_on, wait_while, poll, ..._sync)")
        stand_in = self._stand_in
        lent = released = False
        if stand_in.lent:
            lent, released = stand_in.nested_begins()
        # In this order: after the first, nothing that runs adds to what the second puts aside.
        loop_state = self.loop.begin_nested()
        try:
            return loop_state, self._put_aside(), lent, released
        except BaseException:  # out of stack, for example
            self.loop.end_nested(loop_state)
            raise

    def end_nested(self, state: tuple[Any, ...]) -> None:
        """Go back to what ran before `begin_nested`, which returned `state`."""
        loop_state, self._chained, lent, released = state
        self.loop.end_nested(loop_state)
        if lent or self._stand_in.lent:
            self._stand_in.nested_ends(lent=lent, released=released)

    def _look_again(self) -> None:
        super()._look_again()
        self._stand_in.tell_home()


def _rest_where_idle() -> None:
    """Have tasks rest that were made for loops that do not run. Called from: any thread."""
    idle = [
        context
        for context in every_context()
        if not (context._closed or context._is_guest or context._is_lived_in())
    ]
    if idle:
        rest(idle[0].task_type, *idle)


Loop.context_type = LoopContext


# In messages, as AttributeError's: users know that name.
LoopContext.__name__ = LoopContext.__qualname__ = AioContext.__name__
LoopContext.__module__ = "homebound"
