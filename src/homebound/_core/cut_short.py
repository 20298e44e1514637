"""Steps that an exception cuts short, which is not their coroutine's: nothing of them is lost.

A Python signal handler runs in the main thread, after a call of a C function, at a backward jump,
and as a Python function begins; and a call may find no memory, or no room on the stack. What they
raise in a coroutine is the coroutine's. What they raise in the code around it, in a task's step or
in the loop that runs it, would leave a task that is in no queue, though no one is to wake it: it
would never run again, and its home would wait for it in vain, at its end too.

So the loop puts an entry back that had been taken out and had not begun (put_back.py),
and a step that was cut short is brought to its end (`mend`):

    cut short before the coroutine ran, or    the exception is raised in the coroutine, as if it
    as its value came back, which is lost     had come there; instead of one that ends the loop,
                                              the task is cancelled
    before the task has begun to wait for     the task begins that wait
    what the coroutine has yielded
    as the coroutine's end was recorded       it is recorded

In the last two cases, and where it ends the loop, the exception goes on.

Home only. None of it costs anything while nothing is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.tasks import context_in_use, leave_if_entered, let_die, task_here
from .._os.snapshot import snapshot
from .cell import SUSPENDED
from .context import AioContext
from .task_interface import CANCEL

if TYPE_CHECKING:
    from .mailbox import Entry
    from .task import Task

LOST = True  # nothing has come back from the coroutine: it is about to run, or has run


def mend(task: Task[Any], home: AioContext, yielded: Any, error: BaseException) -> bool:
    """Bring to its end a step that `error` has cut short; True if the coroutine has had `error`.

    `yielded` is what has come back from the coroutine: what it yielded, or the exception that
    ended it, or LOST.
    """
    leave_if_entered(home.loop, task)
    if yielded is LOST:
        if _goes_on(task, home, error):
            return True
    elif task.done() or isinstance(yielded, BaseException):
        _end(task, yielded)
    else:
        _carry_on(task, home, yielded)
    home._end_chain()
    return False


def _goes_on(task: Task[Any], home: AioContext, error: BaseException) -> bool:
    """Have the coroutine run, again or for the first time; True if it has had `error`."""
    if getattr(task._body, "cr_running", False):
        return False  # it is being run further up the stack, and that goes on
    if task_here(home.loop) is not None:  # another is running, and that is no fault of ours
        task._fail(error)
        return False
    if type(error) is RuntimeError and context_in_use(error):
        _run_in_a_copy(task, home)
        return True
    if task._throw is None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        task._throw = error
        task._run()
        return True
    if task._throw is None:
        task._throw = CANCEL
    if task._suspended:  # the step had not even begun
        task._arrive()
    home._post(task)
    return False


def _run_in_a_copy(task: Task[Any], home: AioContext) -> None:
    """Queue it with a copy of its Context, as that is entered further up in a nested run."""
    task._vars = task._vars.copy()
    home._ready.appendleft(task)


def _end(task: Task[Any], outcome: Any) -> None:
    if not task.done():
        if isinstance(outcome, StopIteration):
            task._succeed(outcome.value)
        else:
            task._fail(outcome)
    let_die(task)
    if task._listeners:
        task._announce()


def _carry_on(task: Task[Any], home: AioContext, yielded: Any) -> None:
    """Begin the wait for what the coroutine has yielded, or what of that is left to do."""
    if _was_handed_over(task, home, yielded):
        pass  # another thread may run it by now
    elif any(_is_for(each, task) for each in snapshot(home._ready)):
        pass  # it is queued, and only its home takes it out
    elif yielded is None:
        home._post(task)
    elif yielded is SUSPENDED:
        _suspend(task)
    elif task._fut_waiter is not yielded:  # nothing has happened
        if getattr(yielded, "_asyncio_future_blocking", None) is False:
            yielded._asyncio_future_blocking = True
        task._wait_for(yielded, home)
    elif type(yielded) is type(task):  # it listens
        if yielded.done():
            yielded._announce()
    elif task._far is None and not any(each[0] is task for each in yielded._callbacks or ()):
        yielded._asyncio_future_blocking = True
        task._wait_for(yielded, home)


def _was_handed_over(task: Task[Any], home: AioContext, yielded: Any) -> bool:
    """Return whether the step has suspended or moved its task; what was left to do is done then."""
    if type(yielded) is list and SUSPENDED in yielded:  # its cell
        if yielded[0] is not SUSPENDED:  # woken before; perhaps queued, and then it runs once
            task._post_resumption(yielded)
        return True
    # It may have run there, and be on its way back. In this order: it is MOVING before it is home.
    if isinstance(yielded, AioContext) and (task._home is not home or task._suspended):
        yielded._ring_for_own()
        return True
    return False


def _is_for(entry: Entry, task: Task[Any]) -> bool:
    """Return whether an entry is the task, or asyncio's note to it that a future is done."""
    return entry is task or getattr(entry, "_callback", None) is task


def _suspend(task: Task[Any]) -> None:
    cell = task._cell
    if SUSPENDED not in cell:
        if task._throw is None:
            task._suspended = True
            cell.append(SUSPENDED)
        else:
            task._claim_own_suspension()
    if cell[0] is not SUSPENDED:
        task._post_resumption(cell)
