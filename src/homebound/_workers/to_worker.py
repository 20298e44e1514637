"""to_worker: a blocking call in a worker, whose completion wakes the task at its home."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from .._core.cell import Waker
from .._core.context import whereabouts
from .._core.coroutines import check_call
from .._core.current import current_context
from .._core.traps import current_task, suspend_for
from .._errors import ContextError
from .jobs import TaskJob
from .pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext


P = ParamSpec("P")
T = TypeVar("T")


def pool_of(context: AioContext) -> WorkerPool:
    """Return the worker pool of a context, made at first use and shut down with the context."""
    pool: WorkerPool | None = context.workers
    if pool is None:
        pool = context.workers = WorkerPool(name=f"{context.name}-worker")
        pool._serves = weakref.ref(context)
    return pool


async def to_worker(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a worker of the current context, and wait for its result.

    contextvars are carried along. If the task is cancelled while the job waits for a worker, the
    call is not made; if it is cancelled while the job runs, the job goes on and its result is
    dropped. Raises the exception of `fn`; TypeError if that is an `async def` or no
    function; ContextError if there is no current context; RuntimeError if no thread can be started;
    concurrent.futures.BrokenExecutor if the worker has died.

    >>> import homebound
    >>> async def main():
    ...     return await homebound.to_worker(sum, [1, 2, 3])
    >>> homebound.run(main())
    6

    Called from: task.
    """
    check_call("to_worker", fn)
    context = current_context()
    if context is None:
        message = (
            f"to_worker needs the loop of a context, and none is current in {whereabouts()}; "
            "AioContext.attach(loop) gives a running loop one"
        )
        raise ContextError(message)
    pool = pool_of(context)
    task = current_task()
    if task is None:
        return await asyncio.wrap_future(pool.submit(fn, *args, **kwargs))
    waker = Waker(task)
    job = TaskJob(fn, args, kwargs, waker)
    try:
        pool._put(job)
        armed = True
        while True:
            if armed:
                await suspend_for(task, job)
            if job.done:
                break
            armed = job.rearm(Waker(task))  # not woken by the worker. Last: the jump rule
    except BaseException:
        waker.forget()
        pool._take_out(job)
        raise
    if job.error is not None:
        try:
            raise job.error
        finally:
            del job, task, waker  # a cycle otherwise: the traceback holds them, and they hold it
    result: T = job.result
    return result
