"""The end of a loop: its tasks, asynchronous generators and workers, then the loop itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from .._aio.handles import starts_coroutine
from .._aio.tasks import be_lost_quietly
from .._os.clock import Deadline
from .current import here
from .left_over import left_over
from .loop import Loop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from .context import AioContext

_RECHECK = 0.05  # seconds between two looks at the tasks of a home that ends
_MOST_TRIES = 100  # to close a context, if each is interrupted
_MOST_GENERATIONS = 64  # of tasks that are made while others end; see _end_tasks


def bound_end(context: AioContext, timeout: float | None) -> None:
    """Limit how long winding down this context may take (None: no limit).

    Call it at home, before winding down.
    """
    context._shutdown_timeout = timeout


def bound_end_now(context: AioContext, timeout: float) -> None:
    """Limit the time that the end of this context may take from now on. Home."""
    context._shutdown_timeout = timeout
    context._end_by = Deadline(timeout)
    context.loop.call_later(timeout, context.loop.stop)


def end_once(context: AioContext) -> None:
    """Stop the loop, unless its end has begun, which must not be interrupted. Home thread."""
    if not context._ending:
        context.loop.stop()


def wind_down(context: AioContext, failure: str) -> None:
    """End everything at home in the context, then its loop; report errors meanwhile as `failure`.

    The end goes on if the loop is told to stop again, and, in an I/O thread, if something raises
    SystemExit.
    """
    context._ending = True
    context._end_begins()
    if isinstance(context.loop, Loop):
        _refuse_coroutines(context.loop)
    told: set[Any] = set()
    try:
        for part in _parts(context, failure):
            if _finish(context, part, failure, told):
                continue
            break  # last: the jump rule
    finally:
        context.loop.close()
        context._close()


def close_surely(context: AioContext) -> None:
    """Close a context, though exceptions from another thread may have cut its end short. Home."""
    for _ in range(_MOST_TRIES):
        if context._over:
            return
        try:
            context.loop.close()
            context._close()
        except BaseException:  # noqa: BLE001, S110  (the first one is raised)
            pass


def _refuse_coroutines(loop: Loop) -> None:
    """Make other threads' run_coroutine_threadsafe raise, until the loop is closed."""

    def call_soon_threadsafe(callback: Any, *args: Any, **options: Any) -> Any:
        if here.context is not loop.home and starts_coroutine(callback):
            loop.home._refuse()
        return Loop.call_soon_threadsafe(loop, callback, *args, **options)

    # On the instance: a check in the method would cost each call an eighth. `close` removes it.
    loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[method-assign]


def _parts(context: AioContext, failure: str) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield the parts of the end, in order. Each is made when the one before it is done."""
    loop = context.loop
    yield _end_tasks(loop, failure)
    context._drained = True
    yield loop.shutdown_asyncgens()
    yield loop.shutdown_default_executor()
    yield context._end_workers()
    yield _end_tasks(loop, failure)  # tasks that were on their way here


def _finish(
    context: AioContext, part: Coroutine[Any, Any, None], failure: str, told: set[Any]
) -> bool:
    """Run one part of the end to completion; False if there is no time left for that.

    `told` has the code that raised SystemExit meanwhile: a reader's callback raises it in each
    iteration, and is reported once.
    """
    loop = context.loop
    task = loop.create_task(part)
    while True:
        alarm = None
        if context._end_by is not None:
            alarm = loop.call_later(context._end_by.timeout() or 0.0, loop.stop)
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or threading.current_thread() is threading.main_thread():
                raise
            _report_once(context, failure, error, told)
        except RuntimeError:
            if task.done() or loop.is_closed():
                raise
            if context._end_is_over():
                _abandon(context, task)
                return False
            # Otherwise the loop was told to stop, which it does once this is done.
        else:
            return True
        finally:
            if alarm is not None:
                alarm.cancel()


def _report_once(context: AioContext, failure: str, error: BaseException, told: set[Any]) -> None:
    """Report an exception, unless the code that raised it is among those `told`."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    if trace.tb_frame.f_code not in told:
        told.add(trace.tb_frame.f_code)
        context.loop.call_exception_handler({"message": failure, "exception": error})


def _abandon(context: AioContext, part: Any) -> None:
    """Report what has not ended when the time is over; its waiters are notified by the close."""
    be_lost_quietly(part)
    if context.workers is not None:
        context.workers._bound_exit(0.0)
    message = (
        f"{context.name!r} has not ended after {context._shutdown_timeout} s, "
        f"in {part.get_coro().__name__}; abandoned:{left_over(context, part)}"
    )
    context.loop.call_exception_handler({"message": message})


async def _end_tasks(loop: asyncio.AbstractEventLoop, failure: str) -> None:
    """Cancel each task at home on the loop once, and wait until there is none.

    Cleanup may make new tasks, and wait for them (gather, wait_for): they are cancelled, and waited
    for, once the tasks cancelled before have ended. Other threads could make tasks forever, so the
    number of rounds is limited: the tasks left then end with the home.
    """
    me = asyncio.current_task()
    asked: set[Any] = set()
    generation: set[Any] = set()
    generations = 0
    while tasks := asyncio.all_tasks(loop) - {me}:
        generation &= tasks
        if not generation:
            if generations == _MOST_GENERATIONS:
                break
            generations += 1
            for task in tasks - asked:
                task.cancel()
            asked |= tasks
            generation = tasks
        # With a timeout: a task that moves away, cleanup and all, is not waited for.
        await asyncio.wait(generation, timeout=_RECHECK)
    for task in asked:
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
                # SystemExit was reported to the loop's exception handler when it was raised.
                about = {"message": failure, "exception": error, "task": task}
                loop.call_exception_handler(about)
