"""The end of a loop: its tasks, asynchronous generators and workers, then the loop itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ._context import AioContext

_RECHECK = 0.05  # seconds after which a winding-down home looks again which tasks it has
_MOST_GENERATIONS = 64  # of tasks that are made while others end; see _end_tasks


def wind_down(context: AioContext, failure: str) -> None:
    """End everything at home here, then the loop. `failure` is what to say of errors meanwhile.

    A loop that is told to stop once more goes on with it. So does an I/O thread's in which
    something raises SystemExit.
    """
    loop = context.loop
    context._ending = True
    try:
        _finish(loop, _end_tasks(loop, failure), failure)
        context._drained = True
        _finish(loop, loop.shutdown_asyncgens(), failure)
        _finish(loop, loop.shutdown_default_executor(), failure)
        _finish(loop, context._end_workers(), failure)
        _finish(loop, _end_tasks(loop, failure), failure)  # those that were on their way here
    finally:
        loop.close()
        context._close()


def _finish(loop: asyncio.AbstractEventLoop, part: Coroutine[Any, Any, None], failure: str) -> None:
    """Run one part of the end, to its end."""
    task = loop.create_task(part)
    while True:
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or threading.current_thread() is threading.main_thread():
                raise
            loop.call_exception_handler({"message": failure, "exception": error})
        except RuntimeError:
            if task.done() or loop.is_closed():
                raise
            # Somebody has stopped the loop: it does stop, when this is done.
        else:
            return


async def _end_tasks(loop: asyncio.AbstractEventLoop, failure: str) -> None:
    """Cancel each task at home here once, and wait until none is.

    Cleanup may make new tasks, which are cancelled and waited for as well; other threads may do so
    for ever. So there is an end to it: what is left then ends with the home.
    """
    me = asyncio.current_task()
    asked: set[Any] = set()
    generation: set[Any] = set()
    generations = 0
    while tasks := asyncio.all_tasks(loop) - {me}:
        for task in tasks - asked:
            task.cancel()
        asked |= tasks
        generation &= tasks
        if not generation:
            if generations == _MOST_GENERATIONS:
                break
            generations += 1
            generation = tasks
        # With a time limit: one that moves away, cleanup and all, is not ours to wait for.
        await asyncio.wait(generation, timeout=_RECHECK)
    for task in asked:
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
                # Of those others the home was told as they were raised.
                about = {"message": failure, "exception": error, "task": task}
                loop.call_exception_handler(about)
