"""Waiting synchronously, with the right loop turning meanwhile.

Who may wait for whom: a home for itself; the main context (its thread, or who holds the big lock)
for anyone; a thread without a context for anyone; one I/O thread for another never.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .._aio.tasks import task_here
from .._core.calls import is_cancelled, run_inline_by, take_cancellation
from .._core.context import whereabouts
from .._core.current import current_context, here, main
from .._core.guest_context import GuestContext
from .._core.loop_context import LoopContext
from .._core.mailbox import check_open
from .._core.places import context_at
from .._core.put_off import PutOff, must_end_waits
from .._core.traps import current_task
from .._errors import WouldDeadlock
from .._os.clock import Deadline
from .._os.process import AtFork, at_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext
    from .._core.task import Task
    from .io_thread import IOThread

# The contexts in which somebody is inside wait_while. List operations are atomic on every build;
# a waiter enters itself before it first looks at its predicate (pairs with kick).
_waiting: list[LoopContext] = []


# The calls each waiting thread is in, innermost last. Written by the thread itself.
_waits: dict[int, list[Waiting]] = {}


def _begin_as_child() -> None:
    """Nothing waits in a forked process yet."""
    _waiting.clear()
    _waits.clear()


at_fork(AtFork.WAITS, _begin_as_child)


def waits() -> dict[int, list[Waiting]]:
    """The threads that wait here now, by ident, with the calls they wait in, innermost last."""
    return {ident: calls for ident, mine in _waits.copy().items() if (calls := mine.copy())}


class Waiting:
    """`with Waiting("block_on", task):` this thread waits. It shows so, to who looks on."""

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
        self.cancel = cancel  # how a stop of the loop has it end; None: as an end, it is waited for
        self.asked = False  # it was, or its task was before. Written by the thread itself
        self._ident = get_ident()

    def __enter__(self) -> None:
        _waits.setdefault(self._ident, []).append(self)

    def __exit__(self, *_error: object) -> None:
        mine = _waits[self._ident]
        mine.pop()
        if not mine:
            del _waits[self._ident]

    def __repr__(self) -> str:
        return f"{self.what}({self.subject!r})"


def kick() -> None:
    """Have everyone in `wait_while` look again. Call it after making a predicate false.

    Called from: any thread.
    """
    for context in tuple(_waiting):
        context.notify()


def _place_to_wait(what: str, context: AioContext | None) -> LoopContext:
    """The context that the caller must turn while it waits for `context`."""
    current = current_context()
    if current is None and here.has_big_lock and isinstance(main.context, GuestContext):
        raise main.context.cannot(f"{what} with the big lock")
    if current is None or (current is not context and current is not main.context):
        raise WouldDeadlock(_may_not_wait(what, current, context))
    if isinstance(current, GuestContext):
        raise current.cannot(what)
    assert isinstance(current, LoopContext)
    return current


def _may_not_wait(what: str, current: AioContext | None, context: AioContext | None) -> str:
    if current is None:
        return (
            f"{what} turns a loop, and there is none for {whereabouts()} to turn: call it at home, "
            "or with the big lock held; block_on(x, ctx) works in any thread"
        )
    if context is None:
        return (
            f"{what} without a context waits for the main one, and an I/O thread may not: "
            f"name its own, or await it instead. Called in {whereabouts()}"
        )
    return (
        f"{what}: an I/O thread may not wait for another, as {whereabouts()} would for "
        f"{context.name!r}; await it instead, or block_on it in a thread that is no home"
    )


def wait_while(
    predicate: Callable[[], object],
    context: AioContext | IOThread | None = None,
    *,
    timeout: float | None = None,
) -> bool:
    """Turn the loop while `predicate()` is true; True if it had to.

    At home of `context` its loop is turned; else the current context must be the main one (main
    thread, or big lock held), and the main loop is. Whoever makes the predicate false calls
    `kick()`. The big lock is let go while asleep. `timeout` is in seconds: TimeoutError.
    Raises WouldDeadlock elsewhere: one I/O thread may not wait for another; ContextClosed if
    `context` has ended and the predicate is still true; CancelledError if the task that it is
    called in is cancelled meanwhile, as Ctrl-C under `run` does.

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
    heeding = _Heeding(predicate, current_task())
    place = None if context is None else context_at(context, "wait_while")
    return turn_while(("wait_while", predicate), heeding, place, timeout, heeding.cancel)


class _Heeding:
    """The predicate of `wait_while`, which raises CancelledError once its task is cancelled."""

    def __init__(self, predicate: Callable[[], object], outer: Task[Any] | None) -> None:
        self._predicate = predicate
        self._outer = outer
        # One that has been cancelled of old: that is for what it awaits next.
        self._heeds = outer is not None and not is_cancelled(outer)
        self._cancelled = False  # by a stop of the loop, with no task of ours to cancel

    def cancel(self) -> None:
        """The loop was told to stop."""
        if self._outer is None:
            self._cancelled = True
        else:
            self._heeds = True
            self._outer.cancel()

    def __call__(self) -> object:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._heeds and is_cancelled(self._outer):  # type: ignore[arg-type]
            raise take_cancellation(self._outer)  # type: ignore[arg-type]
        return self._predicate()


def turn_while(
    what: tuple[str, object],
    predicate: Callable[[], object],
    context: AioContext | None,
    timeout: float | None = None,
    cancel: Callable[[], object] | None = None,
) -> bool:
    """`wait_while` under another name: the call that it is part of, and what that waits for.

    It does not heed cancellation: what it waits for is an end that is under way. Neither does it
    heed a stop of the loop, unless `cancel` says how.
    """
    turned = _place_to_wait(what[0], context)
    _waiting.append(turned)  # counted, then looked: no kick is missed
    try:
        if not predicate():
            return False
        task = task_here(turned.loop)
        with Waiting(*what, turned, task, timed=timeout is not None, cancel=cancel):
            _turn_while(turned, predicate, timeout, context)
    finally:
        _waiting.remove(turned)
    return True


def _turn_while(
    context: LoopContext,
    predicate: Callable[[], object],
    timeout: float | None,
    other: AioContext | None = None,
) -> None:
    """Turn the loop, nested in whatever runs here, while `predicate()`. May raise TimeoutError.

    `other` is whose work would make it false; when that has ended, nobody will: ContextClosed.
    """
    deadline = Deadline(timeout)
    state = context.begin_nested()
    alarm = None
    try:
        left = deadline.timeout()
        if left is not None:
            alarm = context.loop.call_later(left, _nothing)
        while True:  # not `while predicate()`: see BigLock._wait
            if not predicate():
                break
            if other is not None:
                check_open(other)
            if deadline.over():
                raise TimeoutError
            if must_end_waits(context.loop) and end_waits(context):
                continue
            context.turn_once(blocking=True)
    finally:
        if alarm is not None:
            alarm.cancel()
        context.end_nested(state)


def end_waits(context: LoopContext) -> bool:
    """Cancel what stands in the way of a stop of the loop; True if there was something new.

    That is the tasks whose steps stand in nested waits of the calling thread, its home's. Raises
    CancelledError when the time for its end is over.
    """
    stop = PutOff.of(context.loop)
    asked = False
    for call in tuple(_waits.get(get_ident(), ())):
        if call.turned is not context or call.cancel is None or call.asked:
            continue
        call.asked = True
        if call.task is None:
            call.cancel()
            asked = True
            continue
        for caller in run_inline_by(call.task, context):
            stop.ask(caller, caller.cancel)
        asked |= stop.ask(call.task, call.cancel)
    stop.settle()
    if stop.over():
        raise asyncio.CancelledError
    return asked


def _nothing() -> None:
    """An alarm that only ends a sleep."""
