"""The asyncio loop whose iteration is ours.

Of `asyncio.SelectorEventLoop` it keeps transports, servers, signals, subprocesses and timers, and
replaces one iteration (`_run_once`) and `call_soon`:

* The deque `_ready` is the mailbox of the loop's home context: any thread appends to it, the home
  pops. An entry is anything with `_cancelled` and `_run()`: a Handle, a Task, a bottom half.
* The home sleeps only after putting up `home._bell` and then a last look at the mailbox.
* It may run nested: an iteration takes a batch as an iterator, and a nested run inside the batch
  exhausts that first, so that no entry is run twice and none is forgotten.
"""

from __future__ import annotations

import contextvars
from _thread import start_new_thread as start_thread
from itertools import repeat, starmap
from types import MethodType
from typing import TYPE_CHECKING, Any

from .._aio.futures import LoopFuture, new_future
from .._aio.handles import ErrandHandle, FastHandle, hide_last_frame, run_handle
from .._aio.loop import MOST_EVENTS, asyncio_run_forever, clean_up_run
from .._aio.tasks import ON_BEHALF, keep_alive, task_here
from .._errors import ContextClosed
from .._os.clock import monotonic
from .._os.greenlets import turn_here, turn_in
from .._os.parking import SET, wait_for_any
from .big_lock import big_lock, big_lock_released
from .current import current_context, here
from .entries import Errand
from .executors import ExecutorLoop
from .nesting import NestingLoop
from .put_back import carries, put_back
from .put_off import put_off_of
from .resting import lose
from .resumption import continue_surely
from .shared_handle import SharedHandle

if TYPE_CHECKING:
    import asyncio
    import selectors
    from asyncio import events
    from collections.abc import Callable, Coroutine, Iterator

    from .._os.spin import Spin
    from .loop_context import LoopContext
    from .mailbox import Entry
    from .put_off import PutOff

MOST_FRUITLESS = 16  # looks in a row without an event, after which the loop counts as busy
LOOK_INTERVAL = 50e-6  # seconds that a busy loop may run between two looks


class Loop(NestingLoop, ExecutorLoop):
    """An asyncio selector loop: re-entrant, woken by one write a burst, fair with the big lock."""

    # Set by the LoopContext that each loop makes for itself, never None after that; an epitaph once
    # the loop is closed. Any thread reads it.
    home: LoopContext
    # Set one layer up: the class of its context, and that whose instances stand in the mailbox.
    context_type: Callable[[Loop, str | None], LoopContext]
    task_type: type[Any]

    def __init__(
        self, selector: selectors.BaseSelector | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(selector)
        self._depth = 0
        self.is_main = False  # written by the home's thread as it moves in and out
        # A stop that waits until nested waits have ended, else None. Home only.
        self.put_off: PutOff | None = None
        self.spin: Spin | None = None  # adaptive busy polling, if the user has chosen it
        self.context_type(self, name)
        self._takes = starmap(self._ready.popleft, repeat(()))  # one entry at each step

    # Called from any thread.

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.Handle | None:
        """Do as asyncio's call_soon, from any thread."""
        home = self.home
        if type(callback) is self.task_type:  # a future that one of our tasks awaits is done
            try:
                callback._future_done(home)  # type: ignore[attr-defined]
            except BaseException:  # it may be queued
                try:
                    continue_surely(callback, args[0])
                except BaseException:  # noqa: BLE001  (surely.py)
                    start_thread(continue_surely, (callback, args[0]))
                raise
            return None
        if type(callback) is MethodType and callback.__func__ in ON_BEHALF:
            errand = self._errand(callback, args, context)
            if errand is not None:
                entry = ErrandHandle(errand, (), self, contextvars.Context())
                home._post(entry)
                return entry
        handle: events.Handle
        if self._closed or self._debug:
            handle = self._checked_handle(callback, args, context, "call_soon")
        else:
            handle = FastHandle(callback, args, self, context)
        try:
            self._ready.append(handle)
            if home._bell:
                home._ring(handle)
        except BaseException:  # it may be queued
            try:
                home._ring_for_own()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(home._ring_for_own, ())
            raise
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.TimerHandle:
        """Do as asyncio's call_at; the timer of an asyncio.timeout() acts at its task's home."""
        if type(callback) is MethodType and callback.__func__ in ON_BEHALF:
            errand = self._errand(callback, args, context)
            if errand is not None:
                return self._errand_at(when, errand)
        timer = super().call_at(when, callback, *args, context=context)
        if self._debug:
            hide_last_frame(timer)  # this frame: debug mode shows where a timer was made
        return timer

    def _errand(
        self, callback: Any, args: tuple[Any, ...], context: contextvars.Context | None
    ) -> Errand | None:
        task = Errand.task_of(callback)
        if type(task) is not self.task_type:
            return None
        return Errand(task, callback, args, context or contextvars.copy_context())

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.Handle:
        """Do as asyncio's call_soon_threadsafe, with a system call only if the loop is asleep."""
        handle: events.Handle
        if self._closed or self._debug:
            handle = self._checked_handle(
                callback, args, context, "call_soon_threadsafe", SharedHandle
            )
        else:
            handle = SharedHandle(callback, args, self, context)
        home = self.home
        try:
            self._ready.append(handle)
            if home._bell:
                home._ring(handle)
        except BaseException:  # it may be queued
            try:
                home._ring_for_own()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(home._ring_for_own, ())
            raise
        return handle

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> Any:
        """Do as asyncio's create_task, with a homebound Task at home on this loop.

        The one option it knows is `eager_start`; a task factory gets all options.
        """
        if options or self._task_factory is not None or self._closed or self._debug:
            return self._create_otherwise(coro, name, context, options)
        home = self.home  # from here on the steps of AioContext.spawn, without a call for each
        task = new_future(self.task_type)
        task._set_up(coro, home, name, context, False)
        try:
            keep_alive(task)
            self._ready.append(task)
            if home._bell:
                home._ring(task)
        except BaseException as error:
            if not isinstance(error, ContextClosed):
                task._begin_surely()  # it may be queued, or not
            raise
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """Do as asyncio's create_future; without a GIL, threads may await the future together."""
        return LoopFuture(loop=self)

    def _create_otherwise(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        context: contextvars.Context | None,
        options: dict[str, Any],
    ) -> Any:
        """Make a task with the factory, one that may start eagerly, or one in debug mode."""
        self._check_closed()
        home = self.home
        if self._task_factory is not None:
            outer = task_here(self)
            if type(outer) is not self.task_type:
                return self._create_by_factory(coro, name, context, options)
            return home.call_in(outer, self._create_by_factory, coro, name, context, options)
        eager = options.pop("eager_start", False) and home._may_begin_inside(context)
        if options:
            message = f"create_task() got an unexpected keyword argument {min(options)!r}"
            raise TypeError(message)
        make = self.task_type._queued_with_origin if self._debug else self.task_type._queued
        task = make(coro, home, name, context)
        if eager:
            home._begin_inside(task)
        else:
            home._post(task)
        return task

    def _check_thread(self) -> None:
        """Raise RuntimeError unless this context is current in the calling thread (debug mode)."""
        if self._thread_id is not None and current_context() is not self.home:
            message = (
                "Non-thread-safe operation invoked on an event loop other than the current one"
            )
            raise RuntimeError(message)

    def _write_to_self(self) -> None:
        home = self.home
        if home._bell and not self._closed:
            home._ring(None)

    # The life of the loop.

    def run_forever(self) -> None:
        """Do as asyncio's run_forever; meanwhile this thread is the home of the loop's context."""
        self._check_closed()
        self._check_running()
        with self.home.inhabit(), self.in_debug_mode():
            greenlet = turn_here()
            try:
                try:
                    asyncio_run_forever(self)
                finally:
                    clean_up_run(self)
            finally:
                self._listen_no_more()
                turn_in(greenlet)
                put_off, self.put_off = self.put_off, None
                if put_off is not None:
                    put_off.end()

    def stop(self) -> None:
        """Do as asyncio's stop, after nested waits have ended; a stand-in wakes the home thread."""
        put_off = put_off_of(self)
        if put_off is not None and put_off.pending():
            return  # the loop stops once the nested waits have ended
        super().stop()
        home = self.home
        if here.context is home:
            home._stand_in.tell_home()

    def close(self) -> None:
        """Do as asyncio's close, and notify what waits for tasks and futures of this loop.

        If a signal handler raises in the middle, another call does the rest.
        """
        if self.is_running():
            message = "Cannot close a running event loop"
            raise RuntimeError(message)
        if self._closed:
            return
        self._hear_no_more()
        home = self.__dict__.get("home")
        if home is None:  # an exception has left it half made
            super().close()
            return
        home._close()
        self._drop_signal()
        # asyncio clears the queue that it finds, so it gets another one. A producer that was too
        # late withdraws its entry from the mailbox; if it were gone, it would count as answered.
        self._ready = home.set_aside()
        try:
            super().close()
        finally:
            self._ready = home._ready
            if self._closed:
                self.home = home._epitaph()

    def __del__(self, _lose: Any = lose) -> None:
        """Do as asyncio's for an unclosed loop, and report the pending tasks that are lost."""
        # _lose: at the end of the interpreter the names of this module may be gone.
        if not self._closed:
            _lose(self)
        super().__del__()

    # One iteration.

    def _run_once(self) -> None:  # noqa: C901, PLR0912  (every iteration: no calls to spare)
        """Run one iteration of run_forever: the hot case of `iterate`, which says what it does."""
        ready = self._ready
        if not ready or self._debug:
            self.iterate(blocking=not self._stopping)
            return
        home = self.home
        if self.is_main and big_lock._crowd:
            self._give_way()
        # A look is a system call, and costs more than a task's step. A loop that found no event at
        # MOST_FRUITLESS looks in a row is busy with its own tasks, or with posts of other threads
        # that woke it from sleeps in between: it may run batches for a moment between two looks.
        busy_until: float | None = None
        pairs = self._look(0, MOST_EVENTS)
        if pairs:
            self._serve(pairs)
        elif self._fruitless < MOST_FRUITLESS:
            self._fruitless += 1
        else:
            busy_until = monotonic() + LOOK_INTERVAL
        scheduled = self._scheduled  # the same list for the loop's whole life
        entry: Entry | None = None
        count = len(ready)
        while True:
            if scheduled:
                self._collect_timers()
                count = len(ready)
            home._iterations += 1
            try:
                if count == 1:  # the most frequent case: a nested run finds no rest
                    for entry in self._takes:  # popped in C: a handler does not come in between
                        if entry._cancelled:
                            home._skipped += 1
                        else:
                            entry._run()
                        break
                else:
                    home._more += count - 1
                    self._batch = repeat((), count)  # a nested run exhausts it
                    for entry in starmap(ready.popleft, self._batch):
                        if entry._cancelled:
                            home._skipped += 1
                        else:
                            entry._run()
            except (SystemExit, KeyboardInterrupt) as error:
                put_back(home, entry, error)
                raise
            except BaseException as error:  # noqa: BLE001  (reported; the loop goes on)
                put_back(home, entry, error)
                home._report(entry, error)
                self._run_with_care(self._batch)  # the rest of it
            if home._watchers:
                home._tell_watchers()
            count = len(ready)
            # A failed task is reported when the last reference to it goes. And `put_back` takes an
            # entry that is known for one that has not begun.
            entry = None
            if busy_until is None or not count or self._stopping or monotonic() >= busy_until:
                return

    def iterate(self, *, blocking: bool) -> int:
        """Wait for events (if `blocking` and nothing is ready), run one batch, return its size.

        The batch is what is ready by then; what is queued meanwhile waits for the next batch.
        """
        home = self.home
        stand_in = home._stand_in
        if stand_in.lent and stand_in.has_lent():
            stand_in.come_back()
        if blocking and not self._ready:
            self._sleep()
        else:
            if self.is_main and big_lock._crowd and here.seat.home is home:
                self._give_way()
            pairs = self._look(0, MOST_EVENTS)
            if pairs:
                self._serve(pairs)
        if self._scheduled:
            self._collect_timers()
        count = len(self._ready)
        home._iterations += 1
        home._more += count - 1
        self._batch = batch = repeat((), count)
        self._run_with_care(batch)
        if home._watchers:
            home._tell_watchers()
        return count

    def _run_with_care(self, batch: Iterator[tuple[()]]) -> None:
        """Run a batch as `_run_once` does, with what a nested run and debug mode need."""
        ready = self._ready
        entry: Entry | None = None
        takes = starmap(ready.popleft, batch)
        while True:
            try:
                for entry in takes:
                    if entry._cancelled:
                        self.home._skipped += 1
                    elif self._debug:
                        self._run_timed(entry)
                    elif self._depth:
                        self._run_nested(entry)
                    else:  # not nested, as after each sleep: no Context is in use further up
                        entry._run()
                    # A traceback refers to this frame. If the frame referred to the entry, a failed
                    # task would be kept, and not be reported, until the garbage collector runs.
                    entry = None  # noqa: PLW2901
                return  # noqa: TRY300
            except (SystemExit, KeyboardInterrupt) as error:
                put_back(self.home, entry, error)
                raise
            except BaseException as error:  # noqa: BLE001  (reported; the loop goes on)
                try:
                    put_back(self.home, entry, error)
                except RecursionError:  # so there was no stack for the entry either
                    if entry is not None:
                        ready.appendleft(entry)
                    raise
                self.home._report(entry, error)
                entry = None

    def _give_way(self) -> None:
        """Let the threads that wait for the big lock have it in turn, as a busy main loop."""
        stand_in = self.home._stand_in
        try:
            stand_in.lend()
        finally:
            stand_in.come_back()
            big_lock._look_around()

    def _sleep(self) -> None:
        """Wait for events, a timer or a post; the main loop releases the big lock meanwhile."""
        home = self.home
        stand_in = home._stand_in
        seat = here.seat if self.is_main else None
        held = seat is not None and seat.has_big_lock
        try:
            # From now on a signal handler runs no task here: that might add a timer or a post which
            # this sleep would miss. It posts the task, which rings the bell.
            stand_in.lent = True
            until = self.next_timer() if self._scheduled else None
            spin = self.spin
            if spin is not None and spin.begin(self._peek, self.timeout_until(until)):
                return
            home._bell = [SET]  # put_up_bell, without the call
            ready = self._ready
            ready.rotate(0)
            if ready:
                self._collect_events(0)
                return
            if self.is_main:
                self._sleep_without_big_lock(until)
            elif self._depth and here.seat.has_big_lock:
                # A nested call waits: the thread that is to end its wait may need the lock.
                with big_lock_released():
                    self._collect_until(until)
            else:
                self._collect_until(until)
        finally:
            # Else interrupted too early: see `come_back`.
            if not held or seat.has_big_lock:  # type: ignore[union-attr]  # not None if `held`
                stand_in.awake()
        if ready:  # _woken_by_post, without the call
            home._wakeups += 1
            home._coalesced += len(ready) - 1
        if spin is not None:
            spin.slept()

    def _sleep_without_big_lock(self, until: float | None) -> None:
        """Sleep in the main thread; another thread may stand in meanwhile."""
        stand_in = self.home._stand_in
        turns = stand_in.turns
        watched = None if self._shareable else self.watched()
        pairs: list[Any] | None = None
        try:
            if self._depth:
                big_lock._make_ready()
            stand_in.home_sleeps(until, watched)  # even if the program has released the lock itself
            if watched is None:
                pairs = self._look_until(until, self._look, MOST_EVENTS)
            else:
                self._look_until(until, wait_for_any, watched)
        finally:
            big_lock._reacquire()  # raises what was raised meanwhile, once it holds the lock
        if pairs is None or turns != stand_in.turns:
            # The selector was not looked at, or a stand-in may have served the events found.
            pairs = self._look(0, MOST_EVENTS)
        self._serve(pairs)


carries(Loop._run_timed, run_handle, only_call=(Loop._run_nested, Loop._run_handle))
