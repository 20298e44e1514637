"""Synchronous waiting, during which the right loop goes on running.

A home may wait for its own context. The main context (its thread, or the holder of the big lock)
and a thread without a current context may wait for any. An I/O thread must not wait for another.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .._aio.tasks import task_here
from .._core.context import whereabouts
from .._core.coroutines import check_callback
from .._core.current import current_context, here, main
from .._core.guest_context import GuestContext
from .._core.loop_context import LoopContext
from .._core.mailbox import check_open
from .._core.places import context_at
from .._core.put_off import ends_of, must_end_waits
from .._core.traps import current_task
from .._core.waiting import is_cancellation_pending, take_cancellation
from .._errors import WouldDeadlock
from .._os.clock import Deadline
from .._os.process import AtFork, at_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext
    from .._core.task import Task
    from .io_thread import IOThread

# The contexts in which a wait_while runs. List operations are atomic on every build; a waiting
# thread adds its context before it first looks at its predicate (pairs with kick).
_waiting: list[LoopContext] = []


# The calls in which each thread waits, innermost last. Written by the thread itself.
_waits: dict[int, list[Waiting]] = {}


def _begin_as_child() -> None:
    """Forget the parent's waits in a forked process."""
    _waiting.clear()
    _waits.clear()


at_fork(AtFork.WAITS, _begin_as_child)


def waits() -> dict[int, list[Waiting]]:
    """Return the calls in which threads wait now, innermost last, by the threads' idents."""
    return {ident: calls for ident, mine in _waits.copy().items() if (calls := mine.copy())}


class Waiting:
    """A record, for dumps and the like, that the calling thread waits during the `with` block."""

    __slots__ = ("_ident", "asked", "cancel", "subject", "task", "timed", "turned", "what")

    def __init__(  # noqa: PLR0913  (what a wait is)
        self,
        what: str,
        subject: object,
        turned: AioContext | None = None,
        task: object = None,
        *,
        timed: bool = False,
        cancel: Callable[[], object] | None = None,
    ) -> None:
        self.what = what  # the call
        self.subject = subject  # what it waits for
        self.turned = turned  # the context whose loop goes on meanwhile, or None
        self.task = task  # the task whose step the call is in, or None
        self.timed = timed  # it ends by itself
        self.cancel = cancel  # called when the loop is to stop; None: the stop waits for the call
        self.asked = False  # `cancel` was called, or the task cancelled. Written by the thread
        self._ident = get_ident()

    def __enter__(self) -> None:
        mine = _waits.setdefault(self._ident, [])
        mine.append(self)
        _waits[self._ident] = mine  # again: a wait in a finaliser may have dropped it in between

    def __exit__(self, *_error: object) -> None:
        mine = _waits[self._ident]
        mine.pop()
        if not mine:
            _waits.pop(self._ident, None)

    def __repr__(self) -> str:
        return f"{self.what}({self.subject!r})"


def kick() -> None:
    """Have every `wait_while` look again. Call it after making a predicate false.

    Called from: any thread.
    """
    for context in tuple(_waiting):
        context.notify()


def place_to_wait(what: str, awaited: AioContext | None) -> LoopContext:
    """Return the context whose loop the caller, `what`, must turn while it waits for `awaited`."""
    current = current_context()
    if current is None and here.seat.has_big_lock and isinstance(main.context, GuestContext):
        raise main.context.cannot(f"{what} with the big lock")
    if current is None or (current is not awaited and current is not main.context):
        raise WouldDeadlock(_may_not_wait(what, current, awaited))
    if isinstance(current, GuestContext):
        raise current.cannot(what)
    assert isinstance(current, LoopContext)
    return current


def _may_not_wait(what: str, current: AioContext | None, awaited: AioContext | None) -> str:
    if current is None:
        return (
            f"{what} turns a loop, and there is none for {whereabouts()} to turn: call it at home, "
            "or with the big lock held; block_on(x, ctx) works in any thread"
        )
    if awaited is None:
        return (
            f"{what} without a context waits for the main one, and an I/O thread may not: "
            f"name its own, or await it instead. Called in {whereabouts()}"
        )
    return (
        f"{what}: an I/O thread may not wait for another, as {whereabouts()} would for "
        f"{awaited.name!r}; await it instead, or block_on it in a thread that is no home"
    )


def wait_while(
    predicate: Callable[[], object],
    context: AioContext | IOThread | None = None,
    *,
    timeout: float | None = None,
) -> bool:
    """Turn the loop while `predicate()` is true; return True if it was true at first.

    At the home of `context`, that is its loop. Otherwise the current context must be the main one
    (main thread, or big lock held), and it is the main loop. The code that makes the predicate
    false must call `kick()`. The big lock is released while the thread sleeps. Raises TimeoutError
    after `timeout` seconds; WouldDeadlock in other threads, as one I/O thread must not wait for
    another; ContextClosed if `context` has ended and the predicate is still true; CancelledError if
    the task in which it is called is cancelled meanwhile, as Ctrl-C under `run` does.

    >>> import homebound
    >>> async def main(io):
    ...     done = []
    ...     io.context.call_soon(lambda: (done.append(1), homebound.kick()))
    ...     homebound.wait_while(lambda: not done, io.context)
    ...     return done
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io))
    [1]

    Called from: big lock or home.
    """
    check_callback("wait_while", predicate)
    heeding = _Heeding(predicate, current_task())
    place = None if context is None else context_at(context, "wait_while")
    return turn_while(("wait_while", predicate), heeding, place, timeout, heeding.cancel)


class _Heeding:
    """The predicate of `wait_while`, which raises CancelledError once its task is cancelled."""

    def __init__(self, predicate: Callable[[], object], outer: Task[Any] | None) -> None:
        self._predicate = predicate
        self._outer = outer
        # A cancellation that is already pending is for what the task awaits next.
        self._heeds = outer is not None and not is_cancellation_pending(outer)
        self._cancelled = False  # by a stop of the loop, outside of any homebound task

    def cancel(self) -> None:
        """End the wait, as the loop was told to stop."""
        if self._outer is None:
            self._cancelled = True
        else:
            self._heeds = True
            self._outer.cancel()

    def __call__(self) -> object:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._heeds and is_cancellation_pending(self._outer):  # type: ignore[arg-type]
            raise take_cancellation(self._outer)  # type: ignore[arg-type]
        return self._predicate()


def turn_while(
    what: tuple[str, object],
    predicate: Callable[[], object],
    awaited: AioContext | None,
    timeout: float | None = None,
    cancel: Callable[[], object] | None = None,
) -> bool:
    """Wait as `wait_while` does, for a call that dumps name by `what`: the call, and its subject.

    `awaited` is the context whose work makes the predicate false, if it is one's.
    Cancellation does not end it, as it waits for an end that is under way. Neither does a stop of
    the loop, unless `cancel` is given, which is then called.
    """
    turned = place_to_wait(what[0], awaited)
    _waiting.append(turned)  # added before the first look, so that no kick is missed
    try:
        if not predicate():
            return False
        task = task_here(turned.loop)
        with Waiting(*what, turned, task, timed=timeout is not None, cancel=cancel):
            _turn_while(what[0], turned, predicate, timeout, awaited)
    finally:
        _waiting.remove(turned)
    return True


def _turn_while(
    call: str,
    turned: LoopContext,
    predicate: Callable[[], object],
    timeout: float | None,
    awaited: AioContext | None,
) -> None:
    """Turn the loop, nested in whatever runs, while `predicate()`. May raise TimeoutError.

    Raises ContextClosed if `awaited` has ended.
    """
    deadline = Deadline(timeout)
    state = turned.begin_nested()
    alarm = None
    try:
        left = deadline.timeout()
        if left is not None:
            alarm = turned.loop.call_later(left, _nothing)
        while True:  # not `while predicate()`: the jump rule
            if not predicate():
                break
            if awaited is not None:
                check_open(awaited)
            if deadline.over():
                message = f"{call}: the predicate is still true after {timeout} s"
                raise TimeoutError(message)
            if must_end_waits(turned.loop) and end_waits(turned):
                continue
            turned.turn_once(blocking=True)
    finally:
        if alarm is not None:
            alarm.cancel()
        turned.end_nested(state)


def end_waits(context: LoopContext) -> bool:
    """Cancel the tasks and calls that a stop, or Ctrl-C, waits for; True if any was new.

    For a stop, they are the nested waits of the calling thread, the home, and the tasks in whose
    steps those were called; for Ctrl-C, the innermost wait and its tasks, if the main task is to
    end in an outer one. Raises ContextClosed when the time for the end is over.
    """
    calls = tuple(_waits.get(get_ident(), ()))
    ends = ends_of(context.loop, calls[-1].task)
    if ends is None:
        return False
    asked = False
    for call in calls[-1:] if ends.only_innermost else calls:
        if call.turned is not context or call.cancel is None or call.asked:
            continue
        call.asked = True
        if call.task is None:
            call.cancel()
            asked = True
            continue
        asked |= ends.end_wait(call.task, call.cancel)
    ends.proceed(asked=asked)
    return asked


def _nothing() -> None:
    """Do nothing: the callback of a timer that only ends a sleep."""
