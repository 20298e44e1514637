"""The parts of tasks and contexts that `block_on` and `wait_while` need, to wait in a call.

A task in whose step such a call runs awaits what the call waits for: its `_fut_waiter` is the inner
task, and cancelling the outer one cancels the inner. (Otherwise `_fut_waiter` is the future that
the task's last step yielded, which task.py writes; a task of ours that was yielded has the outer
one among its listeners.) They are functions and not methods, as Task and AioContext are public
classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered
from .._errors import ContextClosed
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .context import AioContext
    from .loop_context import LoopContext


def make_task(coro: Coroutine[Any, Any, Any], home: AioContext) -> Task[Any]:
    """Make a task for `post_new`. Called from: any thread."""
    return Task._queued(coro, home, None, None)


def post_new(task: Task[Any], home: AioContext) -> BaseException | None:
    """Post a task of `make_task`; Ctrl-C meanwhile cancels it, and is returned.

    So is another exception of a signal handler, unless it could be the post's own, which may have
    left the task out. For a thread that will wait for the cleanup. Called from: any thread.
    """
    push = home._ready.append
    try:
        push(task)  # the first call in here: an interrupt finds it queued
        if home._bell:
            home._ring(task)
    except (ContextClosed, MemoryError, OSError, RuntimeError):
        raise
    except BaseException as error:  # noqa: BLE001  (raised by the caller, after the cleanup)
        task.cancel()
        return error
    return None


def never_posted(task: Task[Any]) -> None:
    """Abandon a task that was refused, or whose post was interrupted. Called from: any thread."""
    task._abandon("was never started")


def begin(task: Task[Any], target: AioContext) -> None:
    """Start a task that was made without being queued, at home or in `target`; else no-op.

    Called from: any thread.
    """
    task._begin_if_new(target)


def tell(task: Task[Any], listener: Any) -> None:
    """Have `listener._heard(None)` called when the task is done, or now if it is.

    Once; again if an exception has come in between, and it may not have been called.

    Called from: any thread.
    """
    task._tell(listener)


def runs_nowhere(task: Task[Any]) -> bool:
    """Return whether no thread runs its loop, so that a wait for its cleanup would not end.

    Called from: any thread.
    """
    home = task._home
    return not task.done() and home is not None and not home._is_lived_in()


def waits_for_loop(task: Task[Any], loop: object) -> bool:
    """Return whether the task waits for what `loop` has to do, as far as that can be seen.

    That is a task at home there or a future of it, awaited by the task itself, by what it awaits,
    and so on, or in an `asyncio.gather`.

    Called from: any thread.
    """
    left: list[Any] = [task]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is None or id(each) in seen or each.done():
            continue
        seen.add(id(each))
        home = each._home if isinstance(each, Task) else None
        if (each.get_loop() if home is None else home.loop) is loop:
            return True
        left.append(getattr(each, "_fut_waiter", None))
        left.extend(gathered(each) or ())
    return False


# In the step of a task. Home, or its stand-in.


def wait_in_call(outer: Any, inner: Task[Any] | None) -> None:
    """Record what the running task, homebound's or not, waits for in a call; None: no longer."""
    if isinstance(outer, Task):
        outer._fut_waiter = inner  # cancelling the outer task cancels the inner one; see ends_with


def run_first_step(task: Task[Any], turned: LoopContext, outer: Any) -> None:
    """Run a task's first step inline. Most such tasks never wait, and need no nested run."""
    if type(outer) is Task:
        outer._fut_waiter = task  # the step may itself block in here
    try:
        turned._run_inside(task, outer)
    finally:
        if type(outer) is Task:
            outer._fut_waiter = None


def ends_with(task: Task[Any], running: Any) -> bool:
    """Return whether the task is the running one, or waits for it, and so ends no earlier."""
    waiting: Any = task
    seen: set[Any] = set()
    while isinstance(waiting, Task) and waiting not in seen:
        if waiting is running:
            return True
        seen.add(waiting)
        waiting = waiting._fut_waiter
    return False


def is_cancellation_pending(task: Task[Any]) -> bool:
    """Return whether a cancellation is pending, for what the task awaits next."""
    return task._must_cancel


def take_cancellation(task: Task[Any]) -> BaseException:
    """Clear the pending cancellation, and return the exception to raise in the task."""
    return task._to_throw()
