"""The context of a loop of our own: it polls, nests, and lets other threads stand in."""

from __future__ import annotations

import _thread
import asyncio
import threading
import weakref
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .._aio.generators import set_hooks
from .._aio.signals import runs_signal_handlers
from .._aio.tasks import FORGETS_EAGER, running_loop, set_running_loop, task_here
from .._errors import ContextError, WrongThread
from .._os.greenlets import in_child_greenlet, refusal_in_child
from .._os.parking import SET, my_parker, write_signal
from .bell import AWAKE, CLOSED
from .big_lock import big_lock
from .context import AioContext, whereabouts
from .current import current_context, here, main, main_context, set_home, set_main
from .put_off import PutOff, must_end_waits
from .stand_in import may_run_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loop import Loop
    from .mailbox import Entry
    from .task import Task


class _Epitaph(AioContext):
    """Stands for a closed context where its loop would refer to it, and refuses in its name.

    A closed context refers to its loop, so the loop may not to the context: both are to be gone
    with the last who knows them, and not only when the garbage collector comes.
    """

    _is_guest = False

    def __init__(self, context: LoopContext) -> None:
        # Not AioContext.__init__: nobody lives here.
        self._context = weakref.ref(context)
        self.name = context.name
        self._ready = context._ready  # who has just posted there takes it back from here
        self._aside = context._aside
        self._bell = CLOSED
        self._closed = True
        self._forked = context._forked
        self._far_waits = set()

    def _ring(self, entry: Entry | None) -> None:
        self._take_back(entry)

    def _itself(self) -> AioContext | None:
        return self._context()


class LoopContext(AioContext):
    """The home of a homebound loop."""

    _is_guest = False

    loop: Loop

    def __init__(self, loop: Loop, name: str | None = None) -> None:
        super().__init__(loop, name)
        loop.home = self
        self._ready = loop._ready
        self._bell = AWAKE
        self._signal = loop.signal
        # Held by the thread that is home, or by one that acts for it while none is.
        self._key = threading.RLock()

    # Home.

    @contextmanager
    def inhabit(self, *, as_main: bool = False) -> Iterator[None]:
        """Make the calling thread the home for a while; of the main context if it is that.

        It is the main one if asked for, or if the process's main thread runs it and there is none.
        """
        current_context()  # a guest whose loop has stopped lives here no longer
        before = here.home
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
        took = is_main and not here.has_big_lock
        with self._key:
            try:
                set_home(self)
                self.loop._heeds = runs_signal_handlers()
                if is_main:
                    self._become_main()
                self._home_ident = _thread.get_ident()
                yield
            finally:
                try:
                    self._move_out(took)
                except BaseException:  # a signal handler raised: all of it, nevertheless
                    self._move_out(took)
                    raise

    def _move_out(self, took: bool) -> None:  # noqa: FBT001  (it took the big lock)
        """Be no home any more; called again if it was interrupted, at whatever step."""
        self._home_ident = None
        if main.context is self:
            set_main(None)
            self.loop._is_main = False
        self._stand_in.lent = False
        if took and here.has_big_lock:
            big_lock._let_go()
        set_home(None)

    def _become_main(self) -> None:
        big_lock._make_ready()
        big_lock._take_back()
        if main_context() is not None:
            message = (
                f"there is a main context already, {main.context.name!r}: use an IOThread for a "  # type: ignore[union-attr]
                "second loop, or block_on(coro) to run a coroutine in the main one"
            )
            raise ContextError(message)
        set_main(self)
        self.loop._is_main = True

    def _enter_vacant(self) -> bool:
        return here.home is not self and self._key.acquire(blocking=False)

    def _leave(self) -> None:
        self._key.release()

    def _is_lived_in(self) -> bool:
        # Not `loop.is_running()`: who lives here runs the loop several times, with gaps between.
        return self._home_ident is not None

    def _ring(self, entry: Entry | None) -> None:
        bell = self._bell
        if bell is CLOSED:
            self._take_back(entry)
            return
        signal = self._signal  # holds the descriptor open
        try:
            bell.pop()
            write_signal(signal.written_fd, SET)
        except (IndexError, AttributeError):
            pass  # somebody else rings it, or the home has woken by itself
        except BaseException:  # a signal handler raised, perhaps between taking it and ringing
            write_signal(signal.written_fd, SET)
            raise

    def _close(self) -> None:
        """As AioContext's; not while somebody stands in, who writes the bell as well."""
        stand_ins = self._stand_in.turns and not here.has_big_lock
        alone = self._key.acquire(timeout=1)  # whoever acts for the absent home does so briefly
        try:
            if stand_ins:
                big_lock._make_ready()
                big_lock._take_back()
            super()._close()
        finally:
            if alone:
                self._key.release()
            if stand_ins:
                big_lock._let_go()

    def _end_in_child(self) -> None:
        super()._end_in_child()
        if self._key.acquire(blocking=False):  # it was free, or is ours: we were home
            self._key.release()
        else:
            self._key = threading.RLock()
        self._signal = None  # type: ignore[assignment]
        self.loop.leave_in_child()
        self.loop.close_in_child(self._ready)

    def _epitaph(self) -> AioContext:
        """What the closed loop has in our place."""
        return _Epitaph(self)

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

    def _may_begin_inside(self, context: Context | None) -> bool:
        """Whether a new task may run its first step in the calling thread: where it is at home.

        Not before the loop runs, as asyncio's. And not in a signal handler that interrupts the
        home's wait: others may stand in then. Raises RuntimeError if `context` is entered already.
        """
        may = may_run_here(self) and self.loop.is_running()
        if may and isinstance(context, Context):
            context.run(int)
        return may

    def _begin_inside(self, task: Task[Any]) -> None:
        """Run the first step of a new task, in the midst of whatever runs here."""
        self._more += 1
        self._run_inside(task, task_here(self.loop))
        if FORGETS_EAGER and task.done():
            task._body = None  # type: ignore[assignment]

    def _run_inside(self, task: Task[Any], outer: Any) -> None:
        """Run one step of `task` inside `outer`, the task that runs here; None if none does.

        No other task runs inside: those that this one wakes run when the outer one suspends, as
        its own do.
        """
        if outer is None:
            self._run_now(task)
            return
        outermost, chained = self._outer, self._chained
        self._leave_running(outer)
        self._chained = True  # whether or not: those that it wakes are left to the outer task
        try:
            task._run()
        finally:
            self._enter_again(outer)
            self._outer, self._chained = outermost, chained
            ours = outermost is not None or type(outer) is self.task_type
            if not ours:  # a task that is not ours runs none at its end
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
        if ours is None or ours._must_cancel:  # of old: it is for what the task awaits next
            return self._turn(blocking=blocking)
        ran = self._turn(blocking=blocking)
        if ours._must_cancel:
            raise ours._to_throw()
        return ran

    poll.__doc__ = AioContext.poll.__doc__

    def _own_task_here(self) -> Task[Any] | None:
        """The task that this thread runs here, if it is homebound's."""
        task = task_here(self.loop)
        return task if type(task) is self.task_type else None

    def _end_poll(self) -> None:
        """The loop was told to stop: cancel the task that polls, once. A callback, each time."""
        stop = PutOff.of(self.loop)
        outer, ours = task_here(self.loop), self._own_task_here()
        cancel: Any = bool if ours is None else ours.cancel
        interrupted = outer is None or stop.ask(outer, cancel)
        stop.settle()
        if stop.over():
            raise asyncio.CancelledError
        if interrupted:
            raise asyncio.CancelledError if ours is None else ours._to_throw()

    def _turn(self, *, blocking: bool) -> bool:
        """One iteration from inside whatever runs; True if something ran."""
        state = self.begin_nested()
        try:
            skipped = self._skipped
            count = self.turn_once(blocking=blocking)
            return count > self._skipped - skipped
        finally:
            self.end_nested(state)

    def turn_once(self, *, blocking: bool) -> int:
        """One iteration, nested already."""
        if self._closed:
            self._refuse()
        loop = self.loop
        if not blocking or here.home is self:
            return loop.iterate(blocking=blocking)
        if not self._ready:
            parker = my_parker()
            self._watchers.append(parker)  # counted before it sleeps: pairs with notify and kick
            try:
                self._stand_in.sleep(parker)
            finally:
                self._watchers.remove(parker)
        return 0 if self._closed else loop.iterate(blocking=False)

    def begin_nested(self) -> tuple[Any, ...]:
        """Put aside what runs now; what it has woken so far runs in the iterations to come."""
        if running_loop() is self.loop and in_child_greenlet():
            raise refusal_in_child("what turns the loop (block_on, wait_while, poll, ..._sync)")
        stand_in = self._stand_in
        lent = let_go = False
        if stand_in.lent:
            lent, let_go = stand_in.nested_begins()
        # In this order: from the first on nothing that runs adds to what the second puts aside.
        return self.loop.begin_nested(), self._put_aside(), lent, let_go

    def end_nested(self, state: tuple[Any, ...]) -> None:
        loop_state, self._chained, lent, let_go = state
        self.loop.end_nested(loop_state)
        if lent or self._stand_in.lent:
            self._stand_in.nested_ends(lent=lent, let_go=let_go)

    def _look_again(self) -> None:
        super()._look_again()
        self._stand_in.tell_home()
