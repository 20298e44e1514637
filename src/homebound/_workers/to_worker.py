"""A blocking call in a worker of the current context, which wakes the task at its home."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.cell import Waker
from .._core.context import whereabouts
from .._core.current import current_context
from .._core.traps import current_task, suspend_for
from .._errors import ContextError
from .jobs import Job
from .pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext


T = TypeVar("T")


def pool_of(context: AioContext) -> WorkerPool:
    """The worker pool of a context, made at first use, shut down with it."""
    pool: WorkerPool | None = context.workers
    if pool is None:
        pool = context.workers = WorkerPool(name=f"{context.name}-worker")
    return pool


async def to_worker(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a blocking function in a worker of the current context, and wait for its result here.

    contextvars are carried. Cancelled while the job waits for a worker, it is not done; cancelled
    while it runs, it runs on and its result is dropped. Raises what `fn` raises, ContextError where
    there is no current context, RuntimeError if no thread can be started to do it, and
    concurrent.futures.BrokenExecutor if its worker has died.

    >>> import homebound
    >>> async def main():
    ...     return await homebound.to_worker(sum, [1, 2, 3])
    >>> homebound.run(main())
    6

    Called from: task.
    """
    context = current_context()
    if context is None:
        message = (
            f"to_worker from {whereabouts()}: it needs the loop of a context; "
            "AioContext.attach makes one"
        )
        raise ContextError(message)
    pool = pool_of(context)
    task = current_task()
    if task is None:
        return await asyncio.wrap_future(pool.submit(fn, *args, **kwargs))
    waker = Waker(task)
    job = Job(fn, args, kwargs, waker)
    try:
        pool._put(job)
        await suspend_for(task, job)
        while not job.done:  # woken by another than the worker
            if job.rearm(Waker(task)):
                await suspend_for(task, job)
    except BaseException:
        waker.forget()
        pool._take_out(job)
        raise
    if job.error is not None:
        try:
            raise job.error
        finally:
            del job, task, waker  # the traceback would hold them, and they it
    result: T = job.result
    return result
