"""block_on: run an awaitable in a context and wait for it synchronously.

At home, and with the big lock for the main context, it runs inline and the loop is turned, nested
in whatever runs there. In a thread that is no home it is queued, and the thread sleeps.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from .._aio.tasks import running_loop, task_here
from .._core.big_lock import big_lock_released
from .._core.context import whereabouts
from .._core.coroutines import check_awaitable, coroutine_of
from .._core.current import current_context, main_context
from .._core.guest_context import GuestContext
from .._core.places import context_at, served_context
from .._core.put_off import must_end_waits, refuse_late_wait
from .._core.task import Task
from .._core.waiting import (
    begin,
    ends_with,
    make_task,
    never_posted,
    post_new,
    run_first_step,
    runs_nowhere,
    tell,
    wait_in_call,
    waits_for_loop,
)
from .._errors import ContextClosed, ContextError, WouldDeadlock
from .._os.clock import Deadline, check_timeout, monotonic
from .._os.greenlets import awaiter_here, in_child_greenlet, refusal_in_child
from .._os.parking import Parker, my_parker
from .wait_while import Waiting, end_waits, place_to_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._core.context import AioContext
    from .._core.loop_context import LoopContext
    from .io_thread import IOThread

T = TypeVar("T")

_LAST_SLEEP = 1.0  # seconds; see _end_quietly
_UNHEARD = "_homebound_unheard"  # the attribute of an error that exit_begins keeps unreported
# Seconds between two looks at a foreign loop: whether it was closed, if that is not announced; and
# whether a cancelled task waits for it, if it stands still.
_GUEST_RECHECK = 0.5


class _Exit:
    """The state of the interpreter's exit: written once, by the main thread's atexit handler."""

    under_way = False


def exit_begins() -> None:
    """Prepare for the end of all I/O threads at exit. Called from: the main thread."""
    _Exit.under_way = True
    report = threading.excepthook

    def report_others(args: threading.ExceptHookArgs) -> None:
        if not hasattr(args.exc_value, _UNHEARD):
            report(args)

    threading.excepthook = report_others


def exit_is_under_way() -> bool:
    """Return whether the I/O threads end because the interpreter does. Called from: any thread."""
    return _Exit.under_way


def _is_lost(task: Task[Any]) -> bool:
    """Return whether the exit has cancelled a task for which a daemon thread waits."""
    cancelled = task.cancelled() or isinstance(task.exception(), ContextClosed)
    return cancelled and threading.current_thread().daemon


def _end_quietly(task: Task[Any], parker: Parker, expired: _Expiry | None) -> None:
    """Sleep, so that the daemon thread ends without a report of the lost task.

    The sleep is limited, as a task whose cleanup waits for this thread would hang the exit. If the
    exit takes longer, the error is raised here, and not reported if it is not caught.
    """
    deadline = monotonic() + _LAST_SLEEP
    while (left := deadline - monotonic()) > 0:
        parker.park(left)
    try:
        _outcome(task, expired)
    except BaseException as error:
        setattr(error, _UNHEARD, True)
        raise


def block_on(
    awaitable: Awaitable[T],
    context: AioContext | IOThread | None = None,
    *,
    timeout: float | None = None,
) -> T:
    """Run `awaitable` in `context` and wait for it; return its result or raise its exception.

    `context` is by default a task's home, else the current one, else the one whose task has this
    thread make a call (asyncio.to_thread, anyio.to_thread), else the main one. At home, also
    inside a running task, and with the big lock held for the main one, it runs inline, and the loop
    is turned until it is done: the calling task is put aside, others go on. In a thread without a
    context it is queued, and the thread sleeps. A thread that runs an attached foreign loop sleeps,
    too, for any context but its own, and its loop stands still meanwhile. `timeout` (seconds)
    cancels it, waits for its cleanup (unless no thread runs its loop, or it waits for the loop that
    stands still), and raises TimeoutError; Ctrl-C does the same with KeyboardInterrupt, and in a
    sleeping thread so does any exception of a signal handler. Raises WouldDeadlock in one I/O
    thread for another, and for the task that calls it; ContextClosed if the context has ended,
    ContextError if there is none.

    >>> import homebound
    >>> async def answer():
    ...     return 42
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.block_on(answer(), io.context)
    42

    Called from: any thread.
    """
    current = current_context()
    place = None if context is None else _place(awaitable, context)
    target = place or _home_of(awaitable) or current or served_context() or main_context()
    if timeout is not None:
        try:
            check_timeout(timeout)
        except BaseException:
            _close(awaitable)
            raise
    try:
        if target is None:
            check_awaitable(awaitable)  # the argument that is wrong comes first
            way = "start a main loop with run(x)"
            if running_loop() is not None:
                way = "have homebound.run(main()) run this loop in place of asyncio.run(main())"
            message = (
                "block_on: there is no context to run it in; name one, block_on(x, ctx), an "
                f"IOThread for example, or {way}. Called in {whereabouts()}"
            )
            raise ContextError(message)  # noqa: TRY301  (one place closes the coroutine)
        if current is None or _may_sleep_through(current, target, awaitable):
            result: T = _block_elsewhere(awaitable, target, timeout)
            return result
        turned = place_to_wait("block_on", target)
        if turned.loop.put_off is not None:
            refuse_late_wait(turned.loop)  # before it makes a task that would be left behind
    except ContextError:
        _close(awaitable)
        raise
    result = _block_here(awaitable, target, turned, timeout)
    return result  # noqa: RET504  (its type)


def _place(awaitable: object, context: AioContext | IOThread) -> AioContext:
    try:
        return context_at(context, "block_on")
    except BaseException:
        _close(awaitable)
        raise


def _close(awaitable: object) -> None:
    """Close a coroutine that will not begin, so that no warning says it was never awaited."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()


def _may_sleep_through(current: AioContext, target: AioContext, awaitable: object) -> bool:
    """Return whether the caller, at home on a foreign loop, may let that stand while it waits.

    It may, like any thread that runs a loop that is not attached, but not in an I/O thread, and not
    for what the standing loop has to do itself.
    """
    if not isinstance(current, GuestContext) or current.let or target is current:
        return False
    if isinstance(awaitable, Task):
        return awaitable.home is not current
    return not (asyncio.isfuture(awaitable) and awaitable.get_loop() is current.loop)


def _home_of(awaitable: object) -> AioContext | None:
    return awaitable.home if isinstance(awaitable, Task) else None


def _block_here(
    awaitable: Awaitable[Any], target: AioContext, turned: LoopContext, timeout: float | None
) -> Any:
    """Run it inline, in a thread that is the home of `turned`, or its stand-in."""
    outer = task_here(turned.loop)
    if outer is not None and in_child_greenlet():
        return _await_in_greenlet(awaitable, target, timeout)
    if isinstance(awaitable, Task):
        task = awaitable
        if ends_with(task, outer):
            message = (
                f"block_on: task {task.get_name()!r} would wait for itself, as it makes the call, "
                f"or awaits what does, in {whereabouts()}"
            )
            raise WouldDeadlock(message)
        begin(task, target)
    elif target is turned:
        task = Task(coroutine_of(awaitable), home=target)
        run_first_step(task, turned, outer)
        if task.done():
            return task.result()
    else:
        task = target.spawn(coroutine_of(awaitable))
    return _block_nested(task, turned, outer, timeout)


def _await_in_greenlet(awaitable: Awaitable[Any], target: AioContext, timeout: float | None) -> Any:
    """Suspend the running task, if the greenlet's library can: its loop cannot be turned here."""
    await_ = awaiter_here()
    if await_ is None:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise refusal_in_child("block_on")
    if isinstance(awaitable, Task):
        task = awaitable
        begin(task, target)
    else:
        task = target.spawn(coroutine_of(awaitable))
    return await_(_result_of(task, asyncio.timeout(timeout)))


async def _result_of(task: Task[Any], limit: asyncio.Timeout) -> Any:
    async with limit:
        return await task


def _block_nested(task: Task[Any], turned: LoopContext, outer: Any, timeout: float | None) -> Any:
    """Turn the loop, nested in whatever runs, until the task is done."""
    ours = outer if isinstance(outer, Task) else None
    state = turned.begin_nested()
    alarm = expired = None
    try:
        wait_in_call(outer, task)
        if timeout is not None:
            expired = _Expiry(task, timeout)
            alarm = turned.loop.call_later(max(0.0, timeout), expired)
        cancel = (task if ours is None else ours).cancel
        with Waiting("block_on", task, turned, outer, timed=timeout is not None, cancel=cancel):
            _turn_until_done(task, turned, outer)
        return _outcome(task, expired)
    finally:
        if alarm is not None:
            alarm.cancel()
        wait_in_call(outer, None)
        turned.end_nested(state)


def _turn_until_done(task: Task[Any], turned: LoopContext, outer: Any) -> None:
    """Turn the loop until the task is done; Ctrl-C at any step cancels it, and is raised then."""
    interrupt: BaseException | None = None
    while True:
        try:
            # Again after an interrupt, which may have come before this.
            tell(task, _Notify(turned, outer))
            while True:  # not `while not task.done()`: the jump rule
                if task.done():
                    break
                asked = must_end_waits(turned.loop) and end_waits(turned)
                turned.turn_once(blocking=not asked)  # if so, look again: it may be the last turn
            break
        except (KeyboardInterrupt, SystemExit) as error:
            if not task.done():
                interrupt = error
                task.cancel()
                continue
            if task.cancelled() or task.exception() is not error:
                interrupt = error  # else it is the task's own, and its result
            break
    if interrupt is not None:
        raise interrupt


def _outcome(task: Task[Any], expired: _Expiry | None) -> Any:
    if expired is not None and expired.fired and task.cancelled():
        message = (
            f"block_on: task {task.get_name()!r} was cancelled after its timeout of "
            f"{expired.timeout} s"
        )
        raise TimeoutError(message)
    return task.result()


class _Expiry:
    """The timeout of a block_on."""

    __slots__ = ("_task", "fired", "timeout")

    def __init__(self, task: Task[Any], timeout: float | None) -> None:
        self._task = task
        self.timeout = timeout
        self.fired = False

    def __call__(self) -> None:
        self.fired = self._task.cancel()


class _Notify:
    """A listener that has the waiting context look, as the task is done."""

    __slots__ = ("_awaiter", "_context")

    def __init__(self, context: AioContext, awaiter: Any) -> None:
        self._context = context
        self._awaiter = awaiter  # the task that is inside block_on, or None

    def _heard(self, _: object) -> None:
        self._context.notify()


class _Unpark:
    """A listener that has the waiting thread look, as the task is done."""

    __slots__ = ("_parker",)

    def __init__(self, parker: Parker) -> None:
        self._parker = parker

    def _heard(self, _: object) -> None:
        self._parker.unpark()


def _block_elsewhere(awaitable: Awaitable[Any], target: AioContext, timeout: float | None) -> Any:
    """Queue it, and sleep until it is done, in a thread that is no home."""
    interrupt: BaseException | None = None
    expired: _Expiry | None = None
    if isinstance(awaitable, Task):
        task = awaitable
        begin(task, target)
    else:
        task = make_task(coroutine_of(awaitable), target)
        try:
            interrupt = post_new(task, target)
        except BaseException:  # refused, or interrupted before
            never_posted(task)
            raise
    # From now on every call is in the `try`: Ctrl-C finds the task queued, and must cancel it. So
    # does any exception of a signal handler, such as the soft time limit of a Celery worker.
    while interrupt is None or not runs_nowhere(task):
        try:
            again = interrupt is not None
            expired = _sleep_until_done(task, None if again else timeout, cancelled=again)
            break
        except BaseException as error:  # noqa: BLE001  (raised once the task has ended)
            interrupt = error
            task.cancel()
    if interrupt is not None:
        raise interrupt
    if not task.done():
        raise TimeoutError(_waits_for_this_thread(task))
    if _Exit.under_way and _is_lost(task):
        _end_quietly(task, my_parker(), expired)
    return _outcome(task, expired)


def _sleep_until_done(
    task: Task[Any], timeout: float | None, *, cancelled: bool = False
) -> _Expiry | None:
    """Wait until the task is done, cancelling it after the timeout; return that if it expired.

    Once it was cancelled, return as well if it waits for the loop that the caller keeps from
    running.
    """
    parker = my_parker()
    tell(task, _Unpark(parker))
    deadline = Deadline(timeout)
    expired: _Expiry | None = None
    with Waiting("block_on", task, timed=timeout is not None):
        while True:  # not `while not task.done()`: the jump rule
            if task.done():
                break
            if deadline.over():
                deadline = Deadline(None)  # once
                expired = _Expiry(task, timeout)
                expired()
                cancelled = True
                if runs_nowhere(task):
                    raise TimeoutError(_unheard(task))
            stands_still = running_loop() if cancelled else None
            _park_until_told(parker, task, deadline, looks=stands_still is not None)
            if stands_still is None or not waits_for_loop(task, stands_still):
                continue
            break  # last: the jump rule
    return expired


def _unheard(task: Task[Any]) -> str:
    return (
        f"block_on timed out, and no thread runs the loop of {task.home!r}; task "
        f"{task.get_name()!r} is cancelled when one does. Called in {whereabouts()}"
    )


def _waits_for_this_thread(task: Task[Any]) -> str:
    return (
        f"block_on timed out, and task {task.get_name()!r} of {task.home!r} waits for the loop of "
        "this thread, which cannot run before the call returns; it is cancelled then. `await` it "
        f"instead. Called in {whereabouts()}"
    )


def _park_until_told(parker: Parker, task: Task[Any], deadline: Deadline, *, looks: bool) -> None:
    """Sleep until the task is done; for a while, if it `looks` or a close is not announced."""
    home = task.home
    silent = home if isinstance(home, GuestContext) and not home.end.covers else None
    with big_lock_released():
        deadline.park(parker, at_most=None if silent is None and not looks else _GUEST_RECHECK)
    if silent is not None and silent.loop.is_closed():
        silent.end.tell()
