"""The entries of a mailbox beside tasks: posted callbacks, errands and bottom halves.

`mailbox.Entry` says what each must have. The home calls `_run()` unless the entry was cancelled,
and reports an exception to the loop's exception handler.
"""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .._aio.tasks import ON_BEHALF
from .._errors import ContextClosed
from .._os.no_copy import refuse_threaded_copy
from .coroutines import check_callback
from .current import current_context
from .pursuit import Pursuer, living_home, post_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import AioContext
    from .task import Task


_NO_VARS = Context()  # never entered: a callback gets a copy, as of any other


class Posted:
    """A callback on its way to a home. Any thread may `cancel()` it before it runs."""

    # Filled in by AioContext.call_soon: an __init__ would cost it a third of its time.
    __slots__ = ("_callback", "_cancelled", "_vars")

    _callback: Callable[..., object]
    _cancelled: bool
    # A copy of the producer's contextvars. None if it has none, as most threads: then the garbage
    # collector has half as many objects to visit in a mailbox with thousands of entries.
    _vars: Context | None

    def cancel(self) -> None:
        """Do not call it, if it has not begun.

        Called from: any thread.
        """
        self._cancelled = True

    def cancelled(self) -> bool:
        """Return whether it was cancelled.

        Called from: any thread.
        """
        return self._cancelled

    def _run(self) -> object:
        return (self._vars or _NO_VARS.copy()).run(self._callback)

    def __repr__(self) -> str:
        state = " cancelled" if self._cancelled else ""
        return f"<Posted{state} {self._callback!r}>"


class PostedWithArgs(Posted):
    """A posted callback with arguments."""

    __slots__ = ("_args",)

    _args: tuple[Any, ...]

    def _run(self) -> object:
        return (self._vars or _NO_VARS.copy()).run(self._callback, *self._args)


def reason(entry: object, error: BaseException) -> BaseException:
    """Return why an entry failed: a callback that is none is the error, not Python's attempt.

    `call_soon` itself does not look: that would cost it 5 % of its time.
    """
    if isinstance(entry, Posted) and not callable(entry._callback):
        try:
            check_callback("call_soon", entry._callback)
        except TypeError as ours:
            ours.__context__ = None
            return ours.with_traceback(None)  # neither frame is the caller's
    return error


class Errand(Pursuer):
    """A callback on behalf of a task, which runs at the task's home and follows it if it moves.

    asyncio's timeout() cancels its task and then notes that it did; its TaskGroup looks whether
    children are left and then sets the future to wait for. Both assume that the task does not run
    meanwhile. That holds only in the thread of the task's home, which need not be the thread of the
    loop that has the timer, or in which the child was made.
    """

    __slots__ = ("_args", "_callback", "_vars")

    def __init__(
        self, task: Task[Any], callback: Any, args: tuple[Any, ...], context: Context
    ) -> None:
        super().__init__(task)
        self._callback = callback  # None once cancelled, by any thread; so nothing keeps its object
        self._args = args
        self._vars = context

    @staticmethod
    def task_of(callback: Any) -> Any:
        """Return the task on whose behalf asyncio has a bound method called, else None."""
        name = ON_BEHALF.get(callback.__func__)
        return None if name is None else getattr(callback.__self__, name)

    def cancel(self) -> None:
        """Do not call it, if it has not begun. Called from: any thread."""
        self._callback = None

    def _act(self) -> None:
        callback = self._callback  # read once: it may be cancelled now
        if callback is not None:
            self._vars.run(callback, *self._args)

    def wait_at_home(self, when: float) -> None:
        """Have the loop of the task's home run it at `when`, as the one that was to has ended.

        Called from: any thread.
        """
        home = living_home(self._task)
        if home is not None and self._callback is not None:
            with suppress(ContextClosed):  # that has ended as well, and the task with it
                post_after(self._task, _Timer(self, when), home)

    def __call__(self) -> None:
        """Run from a handle with another Context: the errand's is entered at the task's home."""
        self._run()

    def __repr__(self) -> str:
        return f"<Errand {self._callback!r} for {self._task!r}>"


class _Timer:
    """A mailbox entry that has the loop of a task's home run an errand at some time."""

    __slots__ = ("_errand", "_when")

    _cancelled = False

    def __init__(self, errand: Errand, when: float) -> None:
        self._errand = errand
        self._when = when

    def _run(self) -> None:
        home: Any = current_context()
        home.loop.call_at(self._when, self._errand)

    def _unrun(self) -> None:
        self._errand.wait_at_home(self._when)


class BottomHalf:
    """A callback that any thread can schedule; scheduled many times before it runs, it runs once.

    `AioContext.bottom_half` makes it. Scheduled while it runs, it runs in the next iteration.

    >>> import asyncio, homebound
    >>> async def main():
    ...     runs = []
    ...     bottom_half = homebound.current_context().bottom_half(lambda: runs.append("ran"))
    ...     bottom_half.schedule()
    ...     bottom_half.schedule()
    ...     await asyncio.sleep(0)
    ...     await asyncio.sleep(0)
    ...     return runs
    >>> homebound.run(main())
    ['ran']

    Called from: any thread.
    """

    __slots__ = ("_callback", "_closed", "_context", "_due", "_token")

    _cancelled = False  # never skipped in a mailbox: it has to note that it left the queue

    def __init__(self, context: AioContext, callback: Callable[[], object]) -> None:
        check_callback("bottom_half", callback)
        self._context = context
        self._callback = callback
        self._closed = False  # set once, by any thread
        self._due = False  # call it; set before queueing, looked at after leaving the queue
        # Empty while it stands in the mailbox: `del` lets one of many put it there. Atomic.
        self._token: list[None] = [None]

    def schedule(self) -> None:  # noqa: C901  (a repair in a call of its own may find no stack)
        """Have it called soon by the context's home; a no-op while scheduled, or if closed.

        Raises ContextClosed if the context has ended.

        Called from: any thread.
        """
        if self._closed:
            return
        context = self._context
        token = self._token
        # Due, then a pass through a lock, then the token. Each pairs with _run, which passes
        # through both locks between being queued and looking whether it is due: the token's own,
        # which `del` takes also if it finds no token, and where no token is seen, the deque's.
        self._due = True
        if not token:
            context._ready.rotate(0)
            if not token:  # it is queued; an exception may have kept it from ringing
                if context._bell:
                    context._ring_for_own()
                return
        try:
            del token[0]  # not pop: after a call, a signal handler could raise
            context._ready.append(self)
        except IndexError:
            return  # another thread was first
        except (MemoryError, RecursionError):
            token.append(None)  # the append has failed: it is not queued
            raise
        except BaseException:
            try:
                context._ring_for_own()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(context._ring_for_own, ())
            raise
        try:
            if context._bell:
                context._ring(self)
        except ContextClosed:
            token.append(None)
            raise
        except BaseException:  # out of stack or memory, or of a signal handler: it is queued
            try:
                context._ring_for_own()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(context._ring_for_own, ())
            raise

    def cancel(self) -> None:
        """Undo `schedule`, unless it has begun to run. It can be scheduled again.

        Called from: any thread.
        """
        self._due = False

    def close(self) -> None:
        """Never call it again, however it was or will be scheduled.

        Called from: any thread.
        """
        self._closed = True
        self._due = False

    def _run(self) -> None:
        try:
            self._token.append(None)  # pairs with schedule, as the next line does
            self._context._ready.rotate(0)
        except BaseException:  # a signal handler raised: as if it was scheduled meanwhile
            if not self._token:
                self._token.append(None)
            if self._due:
                self.schedule()
            raise
        if not self._due or self._closed:
            self._context._skipped += 1
            return
        self._due = False
        self._callback()

    def _unrun(self) -> None:
        if not self._token:
            self._token.append(None)  # so that `schedule` finds the context closed

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        state = "closed" if self._closed else "scheduled" if self._due else "idle"
        return f"<BottomHalf {state} {self._callback!r} of {self._context!r}>"
