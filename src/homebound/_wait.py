"""Waiting synchronously, with the right loop turning meanwhile.

Who may wait for whom: a home for itself; the main context (its thread, or who holds the big lock)
for anyone; a thread without a context for anyone; one I/O thread for another never.
"""

from __future__ import annotations

import asyncio
import threading
import time
from _thread import get_ident
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ._asyncio_private import enter_task, leave_task, running_task
from ._biglock import big_lock_let_go
from ._clock import Deadline
from ._context import whereabouts
from ._current import current_context, here, main, main_context
from ._errors import ContextClosed, ContextError, WouldDeadlock
from ._guest_context import GuestContext
from ._home import LoopContext
from ._park import Parker, my_parker
from ._task import CANCEL, Task
from ._traps import current_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ._context import AioContext

# The contexts in which somebody is inside wait_while. List operations are atomic on every build;
# a waiter enters itself before it first looks at its predicate (pairs with kick).
_waiting: list[LoopContext] = []


# The calls each waiting thread is in, innermost last. Written by the thread itself.
_waits: dict[int, list[Waiting]] = {}


def waits() -> dict[int, list[Waiting]]:
    """The threads that wait here now, by ident, with the calls they wait in, innermost last."""
    return {ident: calls for ident, mine in _waits.copy().items() if (calls := mine.copy())}


_LAST_SLEEP = 1.0  # seconds; see _end_quietly
_GUEST_RECHECK = 0.5  # seconds after which who waits for a loop that does not tell looks at it


class _Exit:
    """Whether the interpreter ends: written once, by the main thread in its atexit handler."""

    under_way = False


def exit_begins() -> None:
    """I/O threads are being ended because the interpreter ends."""
    _Exit.under_way = True


def _end_quietly(task: Task[Any], parker: Parker) -> None:
    """The interpreter has cancelled the task as it ends, and a daemon thread has waited for it.

    Nobody is to hear of it: the thread ends in its sleep. For a time only, or a task whose cleanup
    waits for this thread would hang the exit.
    """
    lost = task.cancelled() or isinstance(task.exception(), ContextClosed)
    if lost and threading.current_thread().daemon:
        deadline = time.monotonic() + _LAST_SLEEP
        while (left := deadline - time.monotonic()) > 0:
            parker.park(left)


class Waiting:
    """`with Waiting("block_on", task):` this thread waits. It shows so, to who looks on."""

    __slots__ = ("_ident", "subject", "task", "timed", "turned", "what")

    def __init__(
        self,
        what: str,
        subject: object,
        turned: AioContext | None = None,
        task: object = None,
        *,
        timed: bool = False,
    ) -> None:
        self.what = what  # the call
        self.subject = subject  # what it waits for
        self.turned = turned  # the context whose loop goes on meanwhile, or None
        self.task = task  # the task whose step the call is in, or None
        self.timed = timed  # it ends by itself
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
        whom = "others" if context is None else repr(context)
        message = (
            f"{what}: {whereabouts()} may not wait for {whom}; "
            + ("only its home may" if context is not None else "name a context, whose home may")
            + ", or the main thread, or a thread that holds the big lock; await it instead, or "
            "block_on it in a thread that is nobody's home"
        )
        raise WouldDeadlock(message)
    if isinstance(current, GuestContext):
        raise current.cannot(what)
    assert isinstance(current, LoopContext)
    return current


def wait_while(
    predicate: Callable[[], object],
    context: AioContext | None = None,
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
    outer = current_task()
    if outer is None or outer._throw is CANCEL:  # of old: it is for what it awaits next
        return turn_while(("wait_while", predicate), predicate, context, timeout)

    def goes_on() -> object:
        if outer._throw is CANCEL:
            raise outer._to_throw()
        return predicate()

    return turn_while(("wait_while", predicate), goes_on, context, timeout)


def turn_while(
    what: tuple[str, object],
    predicate: Callable[[], object],
    context: AioContext | None,
    timeout: float | None = None,
) -> bool:
    """`wait_while` under another name: the call that it is part of, and what that waits for.

    It does not heed cancellation: what it waits for is an end that is under way.
    """
    turned = _place_to_wait("wait_while", context)
    _waiting.append(turned)  # counted, then looked: no kick is missed
    try:
        if not predicate():
            return False
        task = running_task(turned.loop)
        with Waiting(*what, turned, task, timed=timeout is not None):
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
    state = context._begin_nested()
    alarm = None
    try:
        if timeout is not None:
            alarm = context.loop.call_later(max(0.0, timeout), _nothing)
        while predicate():
            if other is not None and other._closed:
                other._refuse()
            if deadline.over():
                raise TimeoutError
            context._turn_once(blocking=True)
    finally:
        if alarm is not None:
            alarm.cancel()
        context._end_nested(state)


def _nothing() -> None:
    """An alarm that only ends a sleep."""


def block_on(
    awaitable: Awaitable[Any], context: AioContext | None = None, *, timeout: float | None = None
) -> Any:
    """Run `awaitable` in `context` and wait for it; its result, or its exception raised here.

    `context` is by default a task's home, else the current one, else the main one. At home, also
    inside a running task, and with the big lock held for the main one, it is run inline and the
    loop turned until it is done: the task outside stays put, others go on. In a thread without a
    context it is queued, and the thread sleeps. `timeout` (seconds) cancels it, waits for its
    cleanup, and raises TimeoutError; so does Ctrl-C, with KeyboardInterrupt. (Where nobody runs its
    loop there is no cleanup to wait for.) Raises WouldDeadlock in one I/O thread for another, and
    for the task that calls it; ContextClosed if the context has ended, ContextError if there is
    none.

    >>> import homebound
    >>> async def answer():
    ...     return 42
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.block_on(answer(), io.context)
    42

    Called from: any thread.
    """
    current = current_context()
    target = context or _home_of(awaitable) or current or main_context()
    try:
        if target is None:
            message = f"block_on from {whereabouts()}: there is no context to run it in; name one"
            raise ContextError(message)  # noqa: TRY301  (one place closes the coroutine)
        if current is None:
            return _block_elsewhere(awaitable, target, timeout)
        turned = _place_to_wait("block_on", target)
    except ContextError:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise
    return _block_here(awaitable, target, turned, timeout)


def _home_of(awaitable: object) -> AioContext | None:
    return awaitable._home if isinstance(awaitable, Task) else None


async def _wrap(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    if awaitable.__class__ is CoroutineType or asyncio.iscoroutine(awaitable):
        return awaitable
    return _wrap(awaitable)


def _block_here(
    awaitable: Awaitable[Any], target: AioContext, turned: LoopContext, timeout: float | None
) -> Any:
    """Inline: this thread is `turned`'s home for now."""
    outer = running_task(turned.loop)
    if isinstance(awaitable, Task):
        task = awaitable
        if _ends_with(task, outer):
            message = (
                f"block_on from {whereabouts()}: {task!r} would wait for itself: "
                "the caller runs in it, or in what it waits for"
            )
            raise WouldDeadlock(message)
        task._begin_if_new(target)
    elif target is turned:
        task = Task(_coroutine(awaitable), home=target)
        _run_first_step(task, turned, outer)
        if task.done():
            return task.result()
    else:
        task = target.spawn(_coroutine(awaitable))
    return _block_nested(task, turned, outer, timeout)


def _ends_with(task: Task[Any], running: Any) -> bool:
    """True if it cannot end before the running task does: it is that, or waits for it in turn."""
    waiting: Any = task
    seen: set[Any] = set()
    while isinstance(waiting, Task) and waiting not in seen:
        if waiting is running:
            return True
        seen.add(waiting)
        waiting = waiting._fut_waiter
    return False


def _run_first_step(task: Task[Any], turned: LoopContext, outer: Any) -> None:
    """Most of what is run inline never waits: it needs no nested loop."""
    if outer is None:
        turned._run_now(task)
        return
    leave_task(turned.loop, outer)
    if outer.__class__ is Task:
        outer._fut_waiter = task  # as in _block_nested: the step may itself block in here
    try:
        task._run()
    finally:
        if outer.__class__ is Task:
            outer._fut_waiter = None
        enter_task(turned.loop, outer)


def _block_nested(task: Task[Any], turned: LoopContext, outer: Any, timeout: float | None) -> Any:
    """Turn the loop, nested in whatever runs here, until the task is done."""
    ours = outer if isinstance(outer, Task) else None
    state = turned._begin_nested()
    alarm = expired = None
    try:
        if ours is not None:
            ours._fut_waiter = task  # cancelling the task outside cancels this one; see _ends_with
        if timeout is not None:
            expired = _Expiry(task)
            alarm = turned.loop.call_later(max(0.0, timeout), expired)
        with Waiting("block_on", task, turned, outer, timed=timeout is not None):
            _turn_until_done(task, turned)
        return _outcome(task, expired)
    finally:
        if alarm is not None:
            alarm.cancel()
        if ours is not None:
            ours._fut_waiter = None
        turned._end_nested(state)


def _turn_until_done(task: Task[Any], turned: LoopContext) -> None:
    interrupt: BaseException | None = None
    task._tell(_Notify(turned))
    while not task.done():
        try:
            turned._turn_once(blocking=True)
        except (KeyboardInterrupt, SystemExit) as error:
            if task.done():
                break  # it is the task's own, and its result
            interrupt = error
            task.cancel()
    if interrupt is not None:
        raise interrupt


def _outcome(task: Task[Any], expired: _Expiry | None) -> Any:
    if expired is not None and expired.fired and task.cancelled():
        message = f"block_on: {task.get_name()!r} was cancelled after its timeout"
        raise TimeoutError(message)
    return task.result()


class _Expiry:
    """The timeout of a block_on."""

    __slots__ = ("_task", "fired")

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self.fired = False

    def __call__(self) -> None:
        self.fired = self._task.cancel()


class _Notify:
    """A listener: the task is done, let the waiting context look."""

    __slots__ = ("_context",)

    def __init__(self, context: AioContext) -> None:
        self._context = context

    def _heard(self, _: object) -> None:
        self._context.notify()


class _Unpark:
    """A listener: the task is done, let the waiting thread look."""

    __slots__ = ("_parker",)

    def __init__(self, parker: Parker) -> None:
        self._parker = parker

    def _heard(self, _: object) -> None:
        self._parker.unpark()


def _post_new(task: Task[Any], target: AioContext) -> BaseException | None:
    """Queue a task; Ctrl-C meanwhile cancels it, and is returned for who waits for the cleanup."""
    push = target._ready.append
    try:
        push(task)  # the first call in here: an interrupt finds it queued
        if target._bell:
            target._ring(task)
    except ContextClosed:
        task._abandon("was never started")
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        task.cancel()
        return error
    return None


def _block_elsewhere(awaitable: Awaitable[Any], target: AioContext, timeout: float | None) -> Any:
    """Queued: this thread is nobody's home, and sleeps."""
    parker = my_parker()
    interrupt: BaseException | None = None
    if isinstance(awaitable, Task):
        task = awaitable
        task._begin_if_new(target)
    else:
        task = Task._queued(_coroutine(awaitable), target)
        interrupt = _post_new(task, target)
    task._tell(_Unpark(parker))
    deadline = Deadline(timeout)
    expired: _Expiry | None = None
    with Waiting("block_on", task, timed=timeout is not None):
        while not task.done():
            try:
                if deadline.over():
                    deadline = Deadline(None)  # once
                    expired = _Expiry(task)
                    expired()
                    if _is_run_by_nobody(task):
                        raise TimeoutError(_unheard(task))
                else:
                    _park_until_told(parker, task, deadline)
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
                task.cancel()
                if _is_run_by_nobody(task):
                    break
    if interrupt is not None:
        raise interrupt
    if _Exit.under_way:
        _end_quietly(task, parker)
    return _outcome(task, expired)


def _is_run_by_nobody(task: Task[Any]) -> bool:
    """Its cancellation leads to nothing that could be waited for, until somebody runs its loop."""
    home = task._home
    return not task.done() and home is not None and not home.loop.is_running()


def _unheard(task: Task[Any]) -> str:
    return (
        f"block_on from {whereabouts()}: timed out, and nobody runs the loop of {task._home!r}; "
        f"{task.get_name()!r} is cancelled when somebody does"
    )


def _park_until_told(parker: Parker, task: Task[Any], deadline: Deadline) -> None:
    """Sleep until the task is done. Some loops of others do not tell when they are closed: look."""
    home = task._home
    silent = home if isinstance(home, GuestContext) and not home.end.covers else None
    with big_lock_let_go():
        deadline.park(parker, at_most=None if silent is None else _GUEST_RECHECK)
    if silent is not None and silent.loop.is_closed():
        silent.end.tell()
