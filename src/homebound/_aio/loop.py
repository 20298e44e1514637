"""asyncio's selector loop: the private parts that `Loop` inherits, declared and replaced.

This room holds every private name of asyncio's that homebound uses: those of the loop are here, of
timers in timers.py, of signals in signals.py, of handles in handles.py, of tasks in tasks.py, of
futures in futures.py, of asynchronous generators in generators.py, and fields that are only read,
to see what a task waits for and where a thread is, in shapes.py and entered.py; uses.py has what
debug mode adds.
tests/core/test_private_names.py checks that. `Loop` gets its private parts from `InheritedLoop`,
`TimedLoop`, `HearingLoop`, `GeneratorLoop` and `DebuggedLoop`. The tests in tests/core that are
named after these files pin what each name means, on every supported Python.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio import events
from asyncio.base_events import _format_handle, _run_until_complete_cb  # type: ignore[attr-defined]
from asyncio.log import logger
from contextlib import suppress
from inspect import signature
from typing import TYPE_CHECKING, Any

from .._os.parking import Signal
from .generators import GeneratorLoop
from .signals import SHORT, HearingLoop
from .tasks import running_loop, set_running_loop
from .timers import TimedLoop
from .uses import DebuggedLoop

if TYPE_CHECKING:
    import contextvars
    from collections import deque
    from collections.abc import Callable, Coroutine, Iterator

    from .._core.mailbox import Entry

# Selectors that two threads cannot use at once: the kernel does not keep their descriptors.
_ONE_THREADS = (selectors.SelectSelector, getattr(selectors, "PollSelector", None))

# Whether asyncio's create_task passes any option to the task factory (Python 3.13.3 and later).
_HANDS_ON_OPTIONS = "kwargs" in signature(asyncio.BaseEventLoop.create_task).parameters

# asyncio's own methods: nest_asyncio may have replaced them in the class that Loop inherits from.
asyncio_run_forever: Callable[[Any], None] = asyncio.BaseEventLoop.run_forever

_run_until_complete = asyncio.BaseEventLoop.run_until_complete
_check_running: Any = asyncio.BaseEventLoop._check_running  # type: ignore[attr-defined]

MOST_EVENTS = 256  # taken from the kernel in one look; the rest comes with the next


def clean_up_run(loop: Any) -> None:
    """Clean up after run_forever if a signal handler has raised as asyncio began to, or meanwhile.

    The loop would be the running one of its thread forever, and could not be closed. Only from 3.13
    on is that a call, at whose start a handler runs.
    """
    if getattr(loop, "_old_agen_hooks", None) is not None:  # what asyncio clears last
        loop._run_forever_cleanup()


def _see_nothing(_timeout: float | None, _most: int) -> list[Any]:
    """Return no events: the look of a closed loop."""
    return []


def _run_nothing(future: Any) -> Any:
    close = getattr(future, "close", None)
    if close is not None:
        close()


def _say_nothing(_context: dict[str, Any]) -> None:
    pass


class InheritedLoop(TimedLoop, HearingLoop, GeneratorLoop, DebuggedLoop):
    """asyncio's selector loop, with its private parts made fit for an iteration of our own."""

    # The mailbox: entries in the order in which they are to run. asyncio only ever appends.
    _ready: deque[Entry]
    _selector: selectors.BaseSelector
    _stopping: bool  # set by stop(); run_forever ends after the iteration that sees it
    _closed: bool
    _check_closed: Callable[[], None]
    _debug: bool
    _thread_id: int | None  # of the thread that runs it; None while no thread does
    _task_factory: Any
    # A task factory that makes the tasks that create_task makes without one; set by task.py.
    own_factory: Callable[..., Any]
    _default_executor: Any  # what run_in_executor(None, ...) uses; None until its first use

    # What set_default_executor takes beside asyncio's; set where WorkerPool is defined.
    thread_pools: tuple[type[Any], ...] = ()

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        try:
            super().__init__(selector)
            self.signal = Signal()  # set by the thread that wakes the sleeping loop
        except BaseException:  # out of descriptors
            self._close_parts(selector)
            raise
        # The batch being run, exhausted by a nested run inside it. Home (or its stand-in) only.
        self._batch: Iterator[tuple[()]] = iter(())
        # Looks in a row that found nothing but the loop's own signal. Home only.
        self._fruitless = 0
        self._epoll: Any = None
        # Whether two threads may use the selector at once.
        self._shareable = type(self._selector) not in _ONE_THREADS
        # Where events come from: (timeout in seconds or None, most events) -> pairs.
        self._look: Callable[[float | None, int], list[Any]] = self._select
        if type(self._selector) is getattr(selectors, "EpollSelector", None):
            import select  # noqa: PLC0415  (epoll exists on Linux alone)

            # Edge triggered: each write wakes the loop, and need not be read.
            self._epoll = self._selector._selector  # type: ignore[attr-defined]
            self._keys = self._selector._fd_to_key  # type: ignore[attr-defined]
            self._look = self._epoll.poll
            self._epoll.register(self.signal.fd, select.EPOLLIN | select.EPOLLET)
        else:
            self._add_reader(self.signal.fd, self.signal.clear)  # type: ignore[attr-defined]

    def _close_parts(self, given: selectors.BaseSelector | None) -> None:
        """Close the open parts of a loop that cannot be made, so that no ResourceWarning comes."""
        self._closed = True
        parts = [getattr(self, name, None) for name in ("_selector", "_ssock", "_csock")]
        for part in parts:
            if part is not None and part is not given:
                part.close()

    def leave_in_child(self) -> None:
        """Run nothing more in a forked process, if it is this loop that runs there.

        Runner ends the loop's tasks and generators as it exits. In the child the loop runs none of
        that, and reports nothing, as the parent does both.
        """
        if running_loop() is self:
            set_running_loop(None)
        for _ in self._batch:
            pass  # the batch ends with the entry that has forked
        self.run_until_complete = _run_nothing  # type: ignore[method-assign]
        self.call_exception_handler = _say_nothing  # type: ignore[assignment, method-assign]

    def _drop_signal(self) -> None:
        """Drop the signal as the loop closes; a thread about to set it still refers to it."""
        signal: Signal | None = self.signal
        if signal is None:
            return  # by a close that was interrupted
        if self._epoll is not None:
            with suppress(OSError):  # collected together, they are finalised in any order
                self._epoll.unregister(signal.fd)
        else:
            self._remove_reader(signal.fd)  # type: ignore[attr-defined]
        self.signal = None  # type: ignore[assignment]
        self._look = _see_nothing  # a bound method would be a reference cycle

    def _close_self_pipe(self) -> None:
        if self._ssock is None:
            return  # by a close that was interrupted
        try:
            super()._close_self_pipe()  # type: ignore[misc]
        except ValueError:  # collected together, the sockets were finalised before the loop
            for end in (self._ssock, self._csock):
                if end is not None:
                    end.close()
            self._ssock = self._csock = None

    def close_in_child(self, mailbox: deque[Entry]) -> None:
        """Close it in a forked process, without touching what it shares with the parent's loop.

        Its kernel objects, the epoll above all, are the parent's as well: only this process's
        copies of the descriptors are closed. `mailbox` is its home's new one.
        """
        self._stopping = self._closed = True
        self._thread_id = None
        self._ready = mailbox
        self._scheduled.clear()
        self._hear_nothing()
        self.signal = None  # type: ignore[assignment]
        self._selector.close()
        for end in (self._ssock, self._csock):
            if end is not None:
                end.close()

    # Events.

    def add_reader(  # type: ignore[override]
        self,
        fd: Any,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        """Do as asyncio's add_reader; the callback runs in `context` (default: a copy of this)."""
        self._ensure_fd_no_transport(fd)  # type: ignore[attr-defined]
        handle = self._add_reader(fd, callback, *args)  # type: ignore[attr-defined]
        if context is not None:
            handle._context = context

    def add_writer(  # type: ignore[override]
        self,
        fd: Any,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        """Do as asyncio's add_writer; the callback runs in `context` (default: a copy of this)."""
        self._ensure_fd_no_transport(fd)  # type: ignore[attr-defined]
        handle = self._add_writer(fd, callback, *args)  # type: ignore[attr-defined]
        if context is not None:
            handle._context = context

    def _select(self, timeout: float | None, _most: int) -> list[Any]:
        """Look at a selector that is not epoll."""
        return self._selector.select(timeout)

    def _collect_events(self, timeout: float | None) -> None:
        pairs = self._look(timeout, MOST_EVENTS)
        if pairs:
            self._serve(pairs)

    def _collect_until(self, until: float | None) -> None:
        """Sleep until there are events, or until loop time `until`, and queue their handlers."""
        if self._heeds:
            pairs = self._look_until(until, self._look, MOST_EVENTS)
        else:
            pairs = self._look(self.timeout_until(until), MOST_EVENTS)
        if pairs:
            self._serve(pairs)

    def _look_until(self, until: float | None, look: Callable[..., Any], what: Any) -> Any:
        """Call `look(timeout, what)` until it finds events, loop time `until`, or a signal."""
        timeout = self.timeout_until(until)
        if not self._heeds or (timeout is not None and timeout <= SHORT):
            return look(timeout, what)
        return look(SHORT, what) or self._sleep_long(look, self.timeout_until(until), what)

    def _peek(self) -> bool:
        """Look without waiting; True if anything is ready now."""
        if not self._ready:
            self._collect_events(0)
        return bool(self._ready)

    def _serve(self, pairs: list[Any]) -> None:
        """Queue the handlers of the descriptors that are ready."""
        if self._epoll is None:
            self._fruitless = 0
            self._process_events(pairs)  # type: ignore[attr-defined]
            return
        keys = self._keys
        ready = self._ready
        for fd, mask in pairs:
            key = keys.get(fd)
            if key is None:
                continue  # the loop's own signal, or a descriptor that is gone
            self._fruitless = 0
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

    def selector_fd(self) -> int | None:
        """Return the descriptor that is readable when the selector has events; None without one."""
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()

    def watched(self) -> list[selectors.SelectorKey]:
        """Return the keys of the descriptors in the selector."""
        return list(self._selector.get_map().values())

    # The end.

    def is_stopping(self) -> bool:
        """Return whether it was told to stop: run_forever ends after this iteration."""
        return self._stopping

    def set_stopping(self, *, value: bool) -> None:
        """Have run_forever end after this iteration, or not."""
        self._stopping = value

    def set_default_executor(self, executor: Any) -> None:
        """Do as asyncio's, which accepts its own thread pool only; here also a WorkerPool."""
        if isinstance(executor, self.thread_pools):
            self._default_executor = executor
        else:
            super().set_default_executor(executor)

    # Handles, checked and timed; task factories.

    def _check_running(self) -> None:
        try:
            _check_running(self)
        except RuntimeError as error:
            message = f"{error}; to wait inside a running loop, await or use homebound.block_on"
            raise RuntimeError(message) from None

    # With this, nest_asyncio believes that it has already patched the class, and leaves it alone.
    # It would replace the iteration by asyncio's, and wake-ups and the big lock would be lost.
    _nest_patched = True

    run_until_complete = _run_until_complete

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Do as asyncio's. If a signal handler kept the loop from stopping, it stops."""
        handle: Any = context.get("handle")
        if getattr(handle, "_callback", None) is _run_until_complete_cb:
            self._ready.append(handle)  # again: run_until_complete would never return
        super().call_exception_handler(context)

    def _checked_handle(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        method: str,
        kind: type[events.Handle] = events.Handle,
    ) -> events.Handle:
        """Make a handle after asyncio's checks; in debug mode it remembers where it was made."""
        self._check_closed()
        if method == "call_soon":
            self._check_thread()  # type: ignore[attr-defined]
        self._check_callback(callback, method)  # type: ignore[attr-defined]
        handle = kind(callback, args, self, context)
        if kind is not events.Handle:
            events.Handle.__init__(handle, callback, args, self, context)  # `kind` does not call it
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-2:]  # type: ignore[attr-defined]  # this call and call_soon
        return handle

    def _run_nested(self, entry: Entry) -> None:
        """Run an entry although the Context of its callback may be in use further up the stack.

        A Context cannot be entered twice; the callback then runs in a copy.
        """
        try:
            is_handle = isinstance(entry, events.Handle)
        except BaseException:  # a signal handler's, and the entry has not begun
            self._ready.appendleft(entry)
            raise
        try:
            if is_handle:
                self._run_handle(entry)
            else:
                entry._run()
        finally:
            del entry  # as in _run_with_care

    def _run_handle(self, handle: Any) -> None:
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
            del handle

    def _run_timed(self, entry: Entry) -> None:
        self._current_handle: Entry | None = entry
        try:
            start = self.time()
        except BaseException:  # as above
            self._ready.appendleft(entry)
            raise
        try:
            self._run_nested(entry)
        finally:
            self._current_handle = None
        took = self.time() - start
        if took >= self.slow_callback_duration:
            what = _format_handle(entry) if isinstance(entry, events.Handle) else repr(entry)
            logger.warning("Executing %s took %.3f seconds", what, took)
        del entry

    def set_task_factory(self, factory: Any) -> None:
        """Do as asyncio's set_task_factory; setting `own_factory` is setting none."""
        super().set_task_factory(None if factory is self.own_factory else factory)

    def get_task_factory(self) -> Any:
        """Return the task factory; if none is set and the loop runs, one that makes our tasks.

        A library that wraps the factory that it finds (an APM) then makes homebound tasks; if it
        found None, it would make asyncio's, which have no home. Before the loop runs, the answer is
        None, as in asyncio.
        """
        if self._task_factory is None and self.is_running():
            return self.own_factory
        return super().get_task_factory()

    def _create_by_factory(
        self,
        coro: Coroutine[Any, Any, Any],
        name: str | None,
        context: contextvars.Context | None,
        options: dict[str, Any],
    ) -> Any:
        """Make a task with the factory, which gets the options that asyncio passes on this Python.

        Options that asyncio's create_task does not accept yet (`eager_start`) are passed as well.
        """
        if context is not None:
            options["context"] = context
        if options.keys() <= {"context"} or _HANDS_ON_OPTIONS:
            if name is not None:
                options["name"] = name
            return super().create_task(coro, **options)
        task = self._task_factory(self, coro, **options)
        if name is not None:
            task.set_name(name)
        return task
