"""The asyncio loop whose iteration is ours, and every name that asyncio keeps private and we use.

Nothing else in homebound touches asyncio's private names; tests/test_asyncio_private.py pins each
for every Python we run on. Of `asyncio.SelectorEventLoop` we keep transports, servers, signals,
subprocesses and timers, and replace one iteration (`_run_once`) and `call_soon`:

* The deque `_ready` is the mailbox of the loop's home context: any thread appends to it, the home
  pops. An entry is anything with `_cancelled` and `_run()`: a Handle, a Task, a bottom half.
* The home sleeps only after putting up `home._bell` and then a last look at the mailbox.
* It may run nested: an iteration takes a batch as an iterator, and whoever polls from inside the
  batch exhausts it first, so that no entry is run twice and none is forgotten.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
import sys
import threading
from asyncio import base_tasks, events, futures, tasks
from asyncio.base_events import (  # type: ignore[attr-defined]
    _MIN_CANCELLED_TIMER_HANDLES_FRACTION,
    _MIN_SCHEDULED_TIMER_HANDLES,
    MAXIMUM_SELECT_TIMEOUT,
    _format_handle,
)
from asyncio.log import logger
from itertools import repeat
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._bell import AWAKE, new_bell
from ._biglock import big_lock
from ._current import current_context, here
from ._park import Signal

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from ._home import LoopContext
    from ._spin import Spin

    Entry = Any  # something with `_cancelled` and `_run()`

# --- asyncio's private names -------------------------------------------------------------------

enter_task: Callable[[Any, Any], None] = tasks._enter_task
leave_task: Callable[[Any, Any], None] = tasks._leave_task
running_loop: Callable[[], asyncio.AbstractEventLoop | None] = events._get_running_loop
set_running_loop: Callable[[Any], None] = events._set_running_loop
describe_task: Callable[[Any], str] = base_tasks._task_repr
task_stack: Callable[[Any, int | None], list[Any]] = base_tasks._task_get_stack
print_task_stack: Callable[[Any, int | None, Any], None] = base_tasks._task_print_stack

# A future's loop; of those without get_loop(), too.
loop_of: Callable[[Any], Any] = futures._get_loop  # type: ignore[attr-defined]

# The task a loop is running, or None. Asked for a loop, it never raises.
running_task: Callable[[Any], Any]
if sys.version_info >= (3, 12):
    running_task = asyncio.current_task
else:
    running_task = tasks._current_tasks.get  # type: ignore[attr-defined]

# What keeps our unfinished tasks alive, and shows them to asyncio.all_tasks(). asyncio keeps a
# WeakSet, which costs half a task to enter and leave. We put the task itself where the WeakSet
# keeps its weak references: iterating, it calls each entry for the object, and Task answers as a
# reference to itself (Task.__call__). One C call enters, one leaves, the reference is strong.
alive: set[Any] = (
    tasks._scheduled_tasks if sys.version_info >= (3, 12) else tasks._all_tasks  # type: ignore[attr-defined]
).data
keep_alive = alive.add
let_die = alive.discard


def begins_wait(yielded: Any) -> bool | None:
    """What a coroutine yielded: True if a future being awaited, False if a future yielded bare.

    None if no future at all. (`_asyncio_future_blocking` is how asyncio tells them apart.)
    """
    blocking: bool | None = getattr(yielded, "_asyncio_future_blocking", None)
    if blocking:
        yielded._asyncio_future_blocking = False
    return blocking


_result = asyncio.Future.result
_exception = asyncio.Future.exception


class FutureParts(asyncio.Future[Any]):
    """The C future that Task builds on, and those of its private parts that a task needs."""

    __slots__ = ("_cancellation",)  # the CancelledError it ended with, until somebody has had it

    def _cancel_with(self, message: Any) -> None:
        """Remember the message for the CancelledError to come."""
        self._cancel_message = message

    def _cancelled_error(self) -> asyncio.CancelledError:
        error: asyncio.CancelledError = self._make_cancelled_error()
        return error

    def _end_cancelled(self, error: asyncio.CancelledError) -> None:
        """Become cancelled by `error`."""
        self._cancellation: asyncio.CancelledError | None = error
        asyncio.Future.cancel(self, error.args[0] if error.args else None)

    def _make_cancelled_error(self) -> asyncio.CancelledError:
        """The error it ended with, for its traceback. Once, as asyncio does it; then copies."""
        error: asyncio.CancelledError | None = getattr(self, "_cancellation", None)
        if error is None:
            error = super()._make_cancelled_error()  # type: ignore[misc]
        else:
            self._cancellation = None
        return error

    def _mark_retrieved(self) -> None:
        self._log_traceback = False

    # asyncio's Future says "I am being awaited" by a flag in itself, so two threads that await one
    # at the same time trip over each other. A task is awaited from anywhere: the flag is always up.
    _asyncio_future_blocking = property(lambda _: True, lambda _self, _value: None)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            yield self
            if not self.done():
                message = "await wasn't used with future"
                raise RuntimeError(message)
        try:
            return _result(self)
        except asyncio.CancelledError:
            pass  # raised below, so as not to be shown as the other's context
        raise self._make_cancelled_error()

    __iter__ = __await__

    def result(self) -> Any:
        """What its coroutine returned, or raises what that raised. See asyncio.Future.result.

        Called from: any thread.
        """
        try:
            return _result(self)
        except asyncio.CancelledError:
            pass
        raise self._make_cancelled_error()

    def exception(self) -> BaseException | None:
        """What its coroutine raised; of a cancelled task, raises it. See asyncio.Future.exception.

        Called from: any thread.
        """
        try:
            return _exception(self)
        except asyncio.CancelledError:
            pass
        raise self._make_cancelled_error()


class FastHandle(events.Handle):
    """asyncio's Handle without asking the loop for its debug flag each time."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Any,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


# --- the loop ----------------------------------------------------------------------------------

MOST_EVENTS = 256  # taken from the kernel in one look; the rest comes with the next
MOST_FRUITLESS = 16  # looks without an event before the loop takes itself to be busy
LOOK_INTERVAL = 50e-6  # seconds that a busy loop may run between two looks


class Loop(asyncio.SelectorEventLoop):
    """An asyncio selector loop: re-entrant, woken by one write a burst, polite to the big lock."""

    # Set by the LoopContext that is made with the loop, never None after that.
    home: LoopContext
    # The class whose instances stand in the mailbox themselves; set where Task is defined.
    task_type: type[Any]
    # What asyncio's loop has, for the type checker.
    _ready: deque[Any]
    _scheduled: list[Any]
    _selector: selectors.BaseSelector
    _stopping: bool
    _closed: bool
    _debug: bool
    _clock_resolution: float
    _timer_cancelled_count: int
    _thread_id: int | None
    _task_factory: Any

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        # The batch being run, for who polls from inside it. Home (or its stand-in) only.
        self._batch: Iterator[None] = repeat(None, 0)
        self._depth = 0  # how many nested runs there are. Home (or its stand-in) only.
        self._fruitless = 0  # looks in a row that found nothing. Home only.
        self._is_main = False  # written by the home's thread as it moves in and out
        # When the home thread, now asleep, means to wake by itself; None while it is awake.
        # Written by the home thread under the big lock if it is the main one's.
        self._sleeps_until: float | None = None
        self.spin: Spin | None = None  # adaptive busy polling, if asked for
        self.signal = Signal()
        self._epoll: Any = None
        # Where events come from: (timeout in seconds or None, most events) -> pairs.
        self._look: Callable[[float | None, int], list[Any]] = self._select
        if type(self._selector) is getattr(selectors, "EpollSelector", None):
            import select  # noqa: PLC0415  (epoll exists on Linux alone)

            # Edge triggered: each write wakes, and nobody has to read.
            self._epoll = self._selector._selector  # type: ignore[attr-defined]
            self._keys = self._selector._fd_to_key  # type: ignore[attr-defined]
            self._look = self._epoll.poll
            self._epoll.register(self.signal.fd, select.EPOLLIN | select.EPOLLET)
        else:
            self._add_reader(self.signal.fd, self.signal.clear)  # type: ignore[attr-defined]

    # What any thread may call.

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.Handle | None:
        """asyncio's call_soon, from any thread."""
        home = self.home
        if callback.__class__ is self.task_type:  # a future tells one of our tasks that it is done
            callback._future_done(home)  # type: ignore[attr-defined]
            return None
        handle: events.Handle
        if self._closed or self._debug:
            handle = self._checked_handle(callback, args, context, "call_soon")
        else:
            handle = FastHandle(callback, args, self, context)
        self._ready.append(handle)
        if home._bell:
            home._ring(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.Handle:
        """asyncio's call_soon_threadsafe: a system call only if the loop is asleep."""
        handle: events.Handle
        if self._closed or self._debug:
            handle = self._checked_handle(callback, args, context, "call_soon_threadsafe")
        else:
            handle = FastHandle(callback, args, self, context)
        self._ready.append(handle)
        home = self.home
        if home._bell:
            home._ring(handle)
        return handle

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool | None = None,
    ) -> Any:
        """asyncio's create_task; what it makes is a homebound Task whose home is this loop's."""
        if self._task_factory is not None or eager_start is not None:
            return self._create_otherwise(coro, name, context, eager_start)
        if self._closed or self._debug:
            return self._create_checked(coro, name, context)
        # As AioContext.spawn, without a call for each of its steps.
        home = self.home
        task = self.task_type(coro, home=home, name=name, context=context)
        task._begin_queued()
        self._ready.append(task)
        if home._bell:
            home._ring(task)
        return task

    def _create_otherwise(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        context: contextvars.Context | None,
        eager_start: bool | None,  # noqa: FBT001
    ) -> Any:
        """A task of a factory's, or asyncio's own if it is to start eagerly."""
        options: dict[str, Any] = {} if context is None else {"context": context}
        if eager_start is not None:
            options["eager_start"] = eager_start
        return super().create_task(coro, name=name, **options)

    def _create_checked(
        self, coro: Coroutine[Any, Any, Any], name: str | None, context: contextvars.Context | None
    ) -> Any:
        """Debug mode: a task remembers where it was made."""
        self._check_closed()
        task = self.task_type(coro, home=self.home, name=name, context=context)
        task._remember_origin()
        task._begin_queued()
        self.home._post(task)
        return task

    def _checked_handle(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        method: str,
    ) -> events.Handle:
        """Debug mode: misuse is refused, and a handle remembers where it was made."""
        self._check_closed()
        if method == "call_soon":
            self._check_thread()
        self._check_callback(callback, method)  # type: ignore[attr-defined]
        handle = events.Handle(callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-2:]  # type: ignore[attr-defined]  # this call and call_soon
        return handle

    def _check_closed(self) -> None:
        super()._check_closed()  # type: ignore[misc]

    def _check_thread(self) -> None:
        """Debug mode: the right thread is the one for which this context is current."""
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
        """asyncio's run_forever; meanwhile this thread is the home of the loop's context."""
        self._check_closed()
        self._check_running()  # type: ignore[attr-defined]
        with self.home.inhabit():
            super().run_forever()

    def close(self) -> None:
        """asyncio's close; who waits for something homed here is told."""
        if self.is_running():
            message = "Cannot close a running event loop"
            raise RuntimeError(message)
        if not self._closed:
            self.home._close()
            if self._epoll is not None:
                self._epoll.unregister(self.signal.fd)
            else:
                self._remove_reader(self.signal.fd)  # type: ignore[attr-defined]
            # Whoever is about to write holds it; a closed context that is kept costs no descriptor.
            self.signal = self.home._signal = None  # type: ignore[assignment]
        super().close()

    async def shutdown_default_executor(self, *args: Any, **timeout: Any) -> None:
        """asyncio's; the context's own workers end with it."""
        await super().shutdown_default_executor(*args, **timeout)
        await self.home._end_workers()

    # One iteration.

    def _run_once(self) -> None:  # noqa: C901, PLR0912  (every iteration: no calls to spare)
        """One iteration of run_forever. `iterate` says what it does; this is its hot case."""
        ready = self._ready
        if not ready or self._debug:
            self.iterate(blocking=not self._stopping)
            return
        home = self.home
        if self._is_main and big_lock._waiters:
            self._give_way()
        # A look is a system call, and costs more than a task's step. A loop that found nothing at
        # so many looks in a row is busy with itself: it may run batches for a moment between two.
        busy_until = 0.0
        pairs = self._look(0, MOST_EVENTS)
        if pairs:
            self._fruitless = 0
            self._serve(pairs)
        elif self._fruitless < MOST_FRUITLESS:
            self._fruitless += 1
        else:
            busy_until = monotonic() + LOOK_INTERVAL
        popleft = ready.popleft
        entry: Entry = None
        while True:
            if self._scheduled:
                self._collect_timers()
            count = len(ready)
            home._iterations += 1
            home._entered += count
            try:
                if count == 1:  # as most often: there is no rest that a nested run could take over
                    entry = popleft()
                    if entry._cancelled:
                        home._skipped += 1
                    else:
                        entry._run()
                else:
                    self._batch = batch = repeat(None, count)
                    for _ in batch:
                        entry = popleft()
                        if entry._cancelled:
                            home._skipped += 1
                        else:
                            entry._run()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  (reported; the loop goes on)
                home._report(entry, error)
                self._run_with_care(self._batch)  # the rest of it
            if home._watchers:
                home._tell_watchers()
            if not busy_until or not ready or self._stopping or monotonic() >= busy_until:
                return

    def iterate(self, *, blocking: bool) -> int:
        """Wait for events (if allowed and nothing is ready), then run one batch; how many entries.

        The batch is what is ready by then: what is queued meanwhile waits for the next.
        """
        self._fruitless = 0
        if blocking and not self._ready:
            self._sleep()
        else:
            if self._is_main and big_lock._waiters and here.home is self.home:
                self._give_way()
            pairs = self._look(0, MOST_EVENTS)
            if pairs:
                self._serve(pairs)
        if self._scheduled:
            self._collect_timers()
        count = len(self._ready)
        home = self.home
        home._iterations += 1
        home._entered += count
        self._batch = batch = repeat(None, count)
        self._run_with_care(batch)
        home._tell_watchers()
        return count

    def _run_with_care(self, batch: Iterator[None]) -> None:
        """A batch: as in `_run_once`, but fit for a nested run and for debug mode."""
        for _ in batch:
            entry = self._ready.popleft()
            if entry._cancelled:
                self.home._skipped += 1
                continue
            try:
                if self._debug:
                    self._run_timed(entry)
                else:
                    self._run_nested(entry)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  (reported; the loop goes on)
                self.home._report(entry, error)
            # A traceback leads to this frame: holding the entry, it would keep a failed task from
            # ending, and from reporting so, until the garbage collector comes.
            entry = None

    def _run_nested(self, entry: Entry) -> None:
        """Run an entry although the Context of its callback may be in use further up the stack.

        A Context cannot be entered twice; the callback then runs in a copy.
        """
        if not isinstance(entry, events.Handle):
            try:
                entry._run()
            finally:
                entry = None  # as in _run_with_care
            return
        handle: Any = entry
        context = handle._context
        try:
            context.run(int)
        except RuntimeError:
            handle._context = context.copy()
        try:
            handle._run()
        finally:
            if handle._context is not None and not handle._cancelled:
                handle._context = context
            entry = handle = None

    def _run_timed(self, entry: Entry) -> None:
        self._current_handle = entry
        start = self.time()
        try:
            self._run_nested(entry)
        finally:
            self._current_handle = None
        took = self.time() - start
        if took >= self.slow_callback_duration:
            what = _format_handle(entry) if isinstance(entry, events.Handle) else repr(entry)
            logger.warning("Executing %s took %.3f seconds", what, took)
        entry = None

    def _give_way(self) -> None:
        """A busy main loop lets those in who wait for the big lock; they are served in turn."""
        big_lock._let_go()
        big_lock._take_back()
        self.home._bell = AWAKE  # who stood in and went to sleep has left one up

    def _sleep(self) -> None:
        """Wait for events, a timer or a post; without the big lock if it is the main loop's."""
        home = self.home
        until = self.next_timer()
        spin = self.spin
        if spin is not None and spin.begin(self._peek, self.timeout_until(until)):
            return
        # Put up a bell, pass through the deque's own lock, and only then look: a producer passes
        # through the same lock with its append before it looks for a bell, so one of us sees the
        # other (pairs with AioContext._post). Model: tests/model/bell.pml.
        home._bell = new_bell()
        self._ready.rotate(0)
        if self._ready:
            home._bell = AWAKE
            self._collect_events(0)
            return
        try:
            if self._is_main:
                self._sleep_without_big_lock(until)
            else:
                self._collect_events(self.timeout_until(until))
        finally:
            home._bell = AWAKE
        if self._ready:
            home._woken_by_post(len(self._ready))
        if spin is not None:
            spin.slept()

    def _sleep_without_big_lock(self, until: float | None) -> None:
        """The main thread's sleep: another thread may stand in meanwhile."""
        turns = self.home._stand_ins
        self._sleeps_until = float("inf") if until is None else until
        timeout = self.timeout_until(until)
        big_lock._let_go()
        try:
            pairs = self._look(timeout, MOST_EVENTS)
        finally:
            big_lock._take_back()
            self._sleeps_until = None
        if turns != self.home._stand_ins:
            # A stand-in was here: what we saw may be served already.
            pairs = self._look(0, MOST_EVENTS)
        self._serve(pairs)

    def timeout_until(self, until: float | None) -> float | None:
        """How long to sleep, in seconds, to wake at loop time `until`; None for ever."""
        if until is None:
            return None
        longest: float = MAXIMUM_SELECT_TIMEOUT
        return min(max(0.0, until - self.time()), longest)

    def _select(self, timeout: float | None, _most: int) -> list[Any]:
        """Look at a selector that is not epoll."""
        return self._selector.select(timeout)

    def _collect_events(self, timeout: float | None) -> None:
        pairs = self._look(timeout, MOST_EVENTS)
        if pairs:
            self._serve(pairs)

    def _peek(self) -> bool:
        """Look without waiting; True if anything is ready now."""
        if not self._ready:
            self._collect_events(0)
        return bool(self._ready)

    def _serve(self, pairs: list[Any]) -> None:
        """Queue the handlers of the descriptors that are ready."""
        if self._epoll is None:
            self._process_events(pairs)  # type: ignore[attr-defined]
            return
        keys = self._keys
        ready = self._ready
        for fd, mask in pairs:
            key = keys.get(fd)
            if key is None:
                continue  # our own signal, or a descriptor that is gone
            reader, writer = key.data
            if reader is not None and mask & ~4:  # anything but EPOLLOUT: error and hang-up too
                if reader._cancelled:
                    self._remove_reader(fd)  # type: ignore[attr-defined]
                else:
                    ready.append(reader)
            if writer is not None and mask & ~1:
                if writer._cancelled:
                    self._remove_writer(fd)  # type: ignore[attr-defined]
                else:
                    ready.append(writer)

    # Timers: asyncio's heap and handles, our upkeep.

    def next_timer(self) -> float | None:
        """When the next timer is due; cancelled ones are dropped on the way."""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        when: float | None = scheduled[0]._when if scheduled else None
        return when

    def _collect_timers(self) -> None:
        """Queue the timers that are due, and tidy the heap when cancelled ones fill it."""
        scheduled = self._scheduled
        count = len(scheduled)
        if (
            count > _MIN_SCHEDULED_TIMER_HANDLES
            and self._timer_cancelled_count / count > _MIN_CANCELLED_TIMER_HANDLES_FRACTION
        ):
            kept = [timer for timer in scheduled if not timer._cancelled]
            for timer in scheduled:
                timer._scheduled = not timer._cancelled
            scheduled[:] = kept
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        end = self.time() + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

    # Nested running.

    def begin_nested(self) -> tuple[Any, Any, int | None]:
        """Let the caller, whatever it is in the middle of, run iterations or tasks of this loop.

        The task that runs now, if any, is left until `end_nested`; in a stand-in's thread this
        loop is the running one meanwhile. What is left of the batch that the caller runs in
        belongs to the next one.
        """
        task = running_task(self)
        before = running_loop()
        thread_id = self._thread_id
        self._depth += 1
        for _ in self._batch:
            pass
        if task is not None:
            leave_task(self, task)
        if before is not self:
            set_running_loop(self)
            self._thread_id = threading.get_ident()
        return task, before, thread_id

    def end_nested(self, state: tuple[Any, Any, int | None]) -> None:
        """Go back to what ran before."""
        task, before, thread_id = state
        if before is not self:
            set_running_loop(before)
            self._thread_id = thread_id
        if task is not None:
            enter_task(self, task)
        self._depth -= 1

    def selector_fd(self) -> int | None:
        """The descriptor that is readable when the selector has something; None if it has none."""
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()
