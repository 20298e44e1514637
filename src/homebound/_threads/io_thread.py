"""IOThread: a thread that is the home of one context."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar
from weakref import WeakSet

from .._aio.futures import set_unless_done
from .._core.context import whereabouts
from .._core.coroutines import one_coroutine
from .._core.current import current_context, set_home
from .._core.foreign_loops import check_loop
from .._core.guest_context import GuestContext
from .._core.left_over import left_over
from .._core.loop import Loop
from .._core.traps import move_to
from .._core.wind_down import ask_to_end, bound_end_now, close_surely, wind_down
from .._errors import ContextClosed, ContextError, WouldDeadlock
from .._os.arguments import hides_more
from .._os.clock import check_timeout
from .._os.greenlets import refuse_green_threads
from .._os.no_copy import refuse_threaded_copy
from .._os.parking import my_parker
from .._os.process import AtExit, AtFork, at_exit, at_fork
from .._os.snapshot import members
from .._os.spin import Spin
from .._os.threads import NoticedThread, ended_early
from .block_on import exit_begins
from .options import check_options
from .run import new_event_loop
from .wait_until import Watchers, wait_until
from .wait_while import kick, place_to_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context
    from types import TracebackType

    from .._core.context import AioContext
    from .._core.task import Task
    from .._os.parking import Parker

T = TypeVar("T")

_MOST_DELAY = 2.0  # seconds, in which a thread whose time is over reports that and ends

_numbers = count()
# By its id, the I/O thread that has each loop. `setdefault` is atomic: of two threads that are
# given one loop, the first has it. A thread removes its own entry; no loop dies while it has one.
_has_loop: dict[int, IOThread] = {}
_running: WeakSet[IOThread] = WeakSet()  # to be stopped at interpreter exit; see _stop_all


class IOThread:
    """A thread that is the home of one context, from `start` to `stop`.

    `loop_factory` makes its loop (default: homebound's own; uvloop.new_event_loop gives one that
    cannot nest). `poll_max_ns` is the longest time, in nanoseconds, for which an idle loop polls
    before it sleeps: worth it on a free-threaded build with cores to spare. The time adapts below
    that, growing by the factor `poll_grow` (0: 2) and shrinking by `poll_shrink` (0: to nothing).
    Raises ValueError if one of them is negative.

    >>> import homebound
    >>> async def work():
    ...     return homebound.current_context().name
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.block_on(io.spawn(work()))
    'io0'

    Called from: any thread.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        poll_max_ns: int = 0,
        poll_grow: int = 0,
        poll_shrink: int = 0,
    ) -> None:
        check_options("IOThread", name, loop_factory)
        for what, value in (
            ("poll_max_ns", poll_max_ns),
            ("poll_grow", poll_grow),
            ("poll_shrink", poll_shrink),
        ):
            if value < 0:
                message = f"IOThread: {what} is {value}; it must be 0 or more"
                raise ValueError(message)
        self.name: str = f"io{next(_numbers)}" if name is None else name
        self._loop_factory = loop_factory or new_event_loop
        self._polling = (poll_max_ns, poll_grow, poll_shrink)
        # Made by start(); made again if the first one could not be started.
        self._thread: NoticedThread
        # That of the thread in start(), and dropped after it: a parker has a descriptor.
        self._starter: Parker | None = None
        # Written by the I/O thread before it says that it has started, then constant.
        self._context: AioContext | None = None
        self._failure: BaseException | None = None
        self._started = False  # set by start(), and cleared again if that fails
        self._ended = False  # set once by the I/O thread, in its last step
        self._asked_to_stop = False  # by any thread
        self._came_from: AioContext | None = None  # of the task in `async with`; written by it
        self._at_end = Watchers()  # notified when _ended is set
        # The timeout of a stop that failed: the interpreter's exit waits as long once more.
        self._patience: float | None = None

    @property
    def context(self) -> AioContext:
        """The context at home in this thread. Raises ContextError before `start`.

        Called from: any thread.
        """
        if self._context is None:
            message = (
                f"IOThread {self.name!r} has no context before start(); "
                "call that, or begin a `with` block"
            )
            raise ContextError(message)
        return self._context

    def start(self) -> Self:
        """Start the thread, and return it; when this returns, it is the home of `context`.

        Raises ContextError if it was started before, RuntimeError if the process can have no more
        threads, and what `loop_factory` raises. After such a failure it can be started again.

        Called from: any thread.
        """
        if self._started:
            message = f"IOThread {self.name!r} was started before; make another one"
            raise ContextError(message)
        refuse_green_threads("IOThread.start()")
        self._starter = my_parker()
        self._thread = NoticedThread(self._live, self._thread_ends, self.name)
        self._failure = None
        self._asked_to_stop = False
        self._started = True
        interrupt: BaseException | None = None
        try:
            self._thread.start()
        except BaseException as error:
            if self._thread.call_off():
                self._started, self._starter = False, None
                raise
            interrupt = error  # Ctrl-C, after the thread had started
        interrupt = self._await_start(self._starter) or interrupt
        self._starter = None
        if self._failure is not None:
            self._thread.join()
            self._started = self._ended = False  # in this order: pairs with `join`
            raise self._failure
        if interrupt is not None:
            raise interrupt
        return self

    def _await_start(self, parker: Parker) -> BaseException | None:
        """Wait until the thread runs or has failed; return an interrupt that came meanwhile."""
        interrupt: BaseException | None = None
        while self._context is None and self._failure is None:
            try:
                parker.park()
            except BaseException as error:  # noqa: BLE001  (raised once the thread can be stopped)
                interrupt = error
        if self._failure is None:
            _running.add(self)
        return interrupt

    @hides_more
    def spawn(
        self,
        coro: Coroutine[Any, Any, T],
        *more: Never,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a task of `coro` at home in this thread, as `io.context.spawn` does.

        Called from: any thread.
        """
        if more:
            raise one_coroutine("spawn", coro, more)
        if self._context is None and asyncio.iscoroutine(coro):
            coro.close()  # before `context` raises, as AioContext.spawn does
        return self.context.spawn(coro, name=name, context=context)

    def stop(self, timeout: float | None = None) -> None:
        """End the thread and wait for it, for at most `timeout` seconds; then TimeoutError.

        Its tasks are cancelled and waited for, asynchronous generators and workers shut down.
        TimeoutError says what has not ended, with stacks; the end goes on, and another `stop` waits
        for the same end. The interpreter's exit waits for `timeout` seconds more; what has not
        ended by then is abandoned, as at the end of `run(..., shutdown_timeout=)`. A no-op if the
        thread has ended or was never started. Raises WouldDeadlock in the thread itself and in
        other I/O threads. `astop`, and the end of `async with IOThread()`, wait without blocking
        (there a task that has moved into the thread moves back first).

        Called from: any thread.
        """
        check_timeout(timeout)
        self._check_wait("stop")
        self._ask_to_stop()
        try:
            self.join(timeout)
        except TimeoutError:
            self._bound_exit(timeout)
            raise

    async def astop(self) -> None:
        """End the thread and wait for it, without blocking: `stop` for a task, on any loop.

        The end of `async with` does the same. A cancelled call still waits for the end, and then
        raises CancelledError. A no-op if the thread has ended or was never started. Raises
        WouldDeadlock in the thread itself.

        >>> import asyncio, homebound
        >>> async def main():
        ...     io = homebound.IOThread("io0")
        ...     io.start()
        ...     await io.astop()
        ...     return io
        >>> asyncio.run(main())
        <IOThread 'io0' ended>

        Called from: task.
        """
        if not self._started:
            return
        if self._context is not None and current_context() is self._context:
            self._check_wait("stop")
        await self._end()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, for at most `timeout` seconds; then TimeoutError.

        A home that waits keeps its loop running. Raises WouldDeadlock as `stop` does.

        Called from: any thread.
        """
        if not self._started or self._failure is not None:
            return
        self._check_wait("join")
        who = ("IOThread.join", self)
        try:
            wait_until(who, lambda: self._ended or not self._started, self._at_end, timeout=timeout)
        except TimeoutError:
            message = f"IOThread {self.name!r} has not ended after {timeout} s"
            if self._context is not None:
                message += left_over(self._context)
            raise TimeoutError(message) from None
        self._thread.join()  # it is in its last step: a matter of microseconds

    def _bound_exit(self, patience: float | None) -> None:
        """Bound the time that the interpreter's exit waits for the thread and its workers."""
        self._patience = None if patience is None else max(patience, 0.0)
        workers = None if self._context is None else self._context.workers
        if workers is not None:
            workers._bound_exit(self._patience)

    def _bound_end(self) -> None:
        """Have the thread abandon, after its patience, what has not ended. Called from: exit."""
        context, patience = self._context, self._patience
        if context is None or patience is None or self._ended:
            return
        try:
            context.call_soon(bound_end_now, context, patience)
        except ContextError:
            pass  # it is closed

    def _check_wait(self, what: str) -> None:
        """Raise if the caller may not wait, before the call changes anything."""
        current = current_context()
        if current is None or self._context is None or self._ended:
            return
        if current is self._context:
            message = (
                f"IOThread.{what} was called in {whereabouts()}, the thread that is to end; "
                f"call it in another thread, as main_context().call_soon(io.{what}) does"
            )
            raise WouldDeadlock(message)
        try:
            place_to_wait(f"IOThread.{what}", self._context)
        except ContextError as error:
            why = str(error)
            if isinstance(error, WouldDeadlock):
                why = why.partition(";")[0]
            message = f"{why}; `await io.astop()` and `async with IOThread()` do not block"
            raise type(error)(message) from None

    def _ask_to_stop(self) -> None:
        self._asked_to_stop = True
        context = self._context  # after that: pairs with _live
        if context is None:  # what called `start` was interrupted, or is still in it
            if self._started and self._failure is None and self._thread.call_off():
                self._failure = ContextError(f"IOThread {self.name!r} was stopped as it started")
                self._started = False
                if (starter := self._starter) is not None:
                    starter.unpark()
            return
        if self._ended:
            return
        try:
            ask_to_end(context)
        except ContextError:
            pass  # its end has begun

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._came_from = current_context()
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await _move_back(self, self._came_from)
        await self._end()

    async def _end(self) -> None:
        """Ask it to stop, and wait until it has ended, in a task of any loop but its own."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell() -> None:
            try:
                # Twice, if the thread ends just now.
                loop.call_soon_threadsafe(set_unless_done, ended)
            except RuntimeError as error:
                if not (isinstance(error, ContextClosed) or loop.is_closed()):
                    raise  # else nothing waits there any more

        self._ask_to_stop()
        if not self._started:
            return
        self._at_end.enter(tell)
        if self._ended:  # after the entry: pairs with the end of _live
            tell()
        cancelled: BaseException | None = None
        try:
            while not ended.done():
                try:
                    await asyncio.shield(ended)
                except asyncio.CancelledError as error:  # it ends all the same: wait for that
                    cancelled = error
        finally:
            self._at_end.leave(tell)
        self._thread.join()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # its traceback holds this frame

    def _state(self) -> str:
        return "ended" if self._ended else "running" if self._context else "not started"

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        return f"<IOThread {self.name!r} {self._state()}>"

    # In the thread.

    def _live(self) -> None:
        try:
            with self._home() as context:
                starter = self._starter  # first: it is dropped once the context is seen
                self._context = context
                if self._asked_to_stop:  # after that: pairs with _ask_to_stop
                    ask_to_end(context)
                if starter is not None:
                    starter.unpark()
                del starter
                try:
                    context.loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    self._report_exit(context, error)
                    raise
                finally:
                    wind_down(context, f"unhandled exception as {self.name} stopped")
        except BaseException as error:
            if self._context is not None:
                raise
            self._ended = True
            self._failure = error  # last but for the notice: `start` goes on
        finally:
            self._thread_ends(self._thread)

    def _thread_ends(self, thread: NoticedThread) -> None:
        """Note the end of the thread, or that it never came to `_live`. May be repeated."""
        if thread is not self._thread:
            return  # it was started again since
        try:
            if self._context is not None and not self._ended:
                close_surely(self._context)
        finally:
            self._ended = True
            if self._failure is None and self._context is None:
                self._failure = ended_early(thread)
            if (starter := self._starter) is not None:  # it has failed to start
                starter.unpark()
            self._at_end.tell()
            kick()  # a `wait_while` for this context looks again, and sees its end

    def _report_exit(self, context: AioContext, error: BaseException) -> None:
        """Report a SystemExit raised here, of which threading's own excepthook says nothing."""
        tasks = sorted(task.get_name() for task in asyncio.all_tasks(context.loop))
        message = f"{error!r} in IOThread {self.name!r} ends it"
        if tasks:
            message += f", and cancels its tasks: {', '.join(tasks)}"
        context.loop.call_exception_handler({"message": message, "exception": error})

    @contextmanager
    def _home(self) -> Iterator[AioContext]:
        loop = self._loop_factory()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            check_loop(f"IOThread {self.name!r}: loop_factory must return", loop)
        if loop.is_closed():
            message = f"IOThread {self.name!r}: loop_factory gave {loop!r}, which is closed"
            raise ContextClosed(message)
        first = _has_loop.setdefault(id(loop), self)
        try:
            if first is not self or loop.is_running():
                message = (
                    f"IOThread {self.name!r}: loop_factory gave a loop that another thread runs; "
                    "it must make one at each call, as homebound.new_event_loop does"
                )
                raise ContextError(message)
            with self._inhabit(loop) as context:
                yield context
        finally:
            if first is self:
                _has_loop.pop(id(loop), None)  # absent in a process that this thread has forked

    @contextmanager
    def _inhabit(self, loop: asyncio.AbstractEventLoop) -> Iterator[AioContext]:
        if isinstance(loop, Loop):
            if self._polling[0]:
                loop.spin = Spin(*self._polling)
            context: AioContext = loop.home
            context.name = self.name
            with loop.home.inhabit():
                yield context
            return
        context = GuestContext.attach_here(loop, self.name)
        asyncio.set_event_loop(loop)
        try:
            yield context
        finally:
            asyncio.set_event_loop(None)
            set_home(None)


async def _move_back(thread: IOThread, back: AioContext | None) -> None:
    """Move the calling task back, if it is at home in the thread whose end it will wait for."""
    if current_context() is thread._context:
        if back is None:
            thread._check_wait("stop")
        else:
            await move_to(back)


def _stop_all() -> None:
    """End every I/O thread in an orderly way before the interpreter ends."""
    exit_begins()
    for thread in members(_running):
        thread._ask_to_stop()
        thread._bound_end()
    for thread in members(_running):
        patience = thread._patience
        thread._thread.join(None if patience is None else patience + _MOST_DELAY)


def _begin_as_child() -> None:
    """Forget the parent's I/O threads in a forked process, which has none to stop at its exit."""
    for thread in tuple(_running):
        thread._ended = True
    _running.clear()
    _has_loop.clear()


at_exit(AtExit.IO_THREADS, _stop_all)
at_fork(AtFork.IO_THREADS, _begin_as_child)
