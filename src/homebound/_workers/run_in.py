"""A call through an executor of somebody else, whose completion wakes the task at its home."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.cell import Waker
from .._core.traps import current_task, suspend
from .pool import WorkerPool
from .to_worker import to_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.task import Task


T = TypeVar("T")

# Whose futures are cancelled in this process, at once. A pool of interpreters is one of threads.
_PROMPT = (
    WorkerPool,
    concurrent.futures.ThreadPoolExecutor,
    concurrent.futures.ProcessPoolExecutor,
)


async def run_in(
    executor: concurrent.futures.Executor, fn: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Call `fn` through any concurrent.futures.Executor, and wait for its result here.

    A thread pool, a process pool, a pool of interpreters (Python 3.14's InterpreterPoolExecutor), a
    Dask cluster's executor. In a WorkerPool contextvars are carried; others carry what they carry.
    Cancelled, it cancels the executor's future: a call that has not begun is not done; one that has
    runs on where the executor cannot stop it, and its result is dropped. An executor of others, a
    cluster's, may have to ask somebody for that: a worker of the home does it, and is waited for
    unless the task is cancelled once more.

    Raises what `fn` raises; what `executor.submit` raises, after a shutdown for example;
    BrokenExecutor if the executor has lost the process or thread that ran it; asyncio's
    CancelledError if somebody else has cancelled the future; TypeError if `executor` is none, or
    what its `submit` returned is no concurrent.futures.Future. A pool of interpreters raises
    NotShareableError, a TypeError, for what cannot be passed between interpreters, with a note that
    names `fn`; ExecutionFailed for an exception of `fn` that cannot be; and
    InterpreterNotFoundError if the interpreter has been closed.

    >>> import homebound
    >>> async def main(pool):
    ...     return await homebound.run_in(pool, sum, [1, 2, 3])
    >>> with homebound.WorkerPool() as pool:
    ...     homebound.run(main(pool))
    6

    Called from: task.
    """
    future = _submit(executor, fn, args, kwargs)
    task = current_task()
    try:
        if task is not None:
            return await _result_at_home(task, executor, future)
        _forgive(future)
        return await asyncio.wrap_future(future)
    except TypeError as error:
        _note_what_was_sent(error, fn)
        raise
    finally:
        del future, task  # the traceback of an error would hold both, and they it


def _submit(
    executor: Any, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> concurrent.futures.Future[T]:
    """Hand the call to the executor; TypeError if that is none."""
    try:
        submit = executor.submit
    except AttributeError:
        message = (
            f"run_in takes a concurrent.futures.Executor, got {executor!r}; "
            "`to_worker(fn, ...)` has the current context's own pool do it"
        )
        raise TypeError(message) from None
    future = submit(fn, *args, **kwargs)
    if not isinstance(future, concurrent.futures.Future):
        raise TypeError(_no_executor(executor, future))
    return future


async def _result_at_home(
    task: Task[Any],
    executor: concurrent.futures.Executor,
    future: concurrent.futures.Future[T],
) -> T:
    """Suspend the task until the future is done, which wakes it at its home."""
    away = set() if task.home is None else task.home._away
    away.add(future)
    waker: Waker | None = None
    try:
        waits = True  # also if it is done already: a cancellation that is pending strikes here
        while waits:
            waker = Waker(task)
            try:
                future.add_done_callback(waker.wake)
                await suspend()
            except BaseException:
                waker.forget()
                raise
            waits = not future.done()  # woken by another
        if future.cancelled():  # not concurrent.futures' error, which is none of cancelled tasks
            message = f"run_in: the future of {executor!r} was cancelled"
            raise asyncio.CancelledError(message)  # noqa: TRY301  (what follows is right for it)
        return future.result()
    except asyncio.CancelledError:
        _forgive(future)
        if isinstance(executor, _PROMPT):
            future.cancel()
        else:
            await _cancel_away(future)
        raise
    finally:
        away.discard(future)
        del future, task, waker  # the traceback of an error would hold them, and they it


def _note_what_was_sent(error: TypeError, fn: Callable[..., Any]) -> None:
    """Add the call's function to an error that names a part of it, or nothing at all.

    "args not shareable" is all that an interpreter says of a function of the main script.
    """
    interpreters = sys.modules.get("concurrent.interpreters")  # only Python 3.14 and later have it
    if interpreters is None or not isinstance(error, interpreters.NotShareableError):
        return
    error.add_note(
        f"run_in: {fn!r}, its arguments, its result or its exception cannot be passed between "
        "interpreters; pass a function that the other interpreter can import (those of __main__ "
        "and closures it cannot), and values that can be pickled"
    )


async def _cancel_away(future: concurrent.futures.Future[Any]) -> None:
    """Its callbacks may wait for an answer from another machine: not in the home's thread."""
    if not future.done():
        try:
            await to_worker(future.cancel)
        except (asyncio.CancelledError, RuntimeError):  # once more; or the workers have ended
            future.cancel()  # if nobody has begun to


def _forgive(future: concurrent.futures.Future[Any]) -> None:
    """Before it is cancelled: have it take an exception that comes too late.

    When a process dies, 3.11's pool tells each future in its list, and fails at the first that was
    cancelled: whoever waits for those behind it would wait for ever. Later Pythons go on there.
    """
    if sys.version_info < (3, 12):
        future.set_exception = partial(_set_exception, future)  # type: ignore[method-assign]


def _set_exception(future: concurrent.futures.Future[Any], exception: BaseException | None) -> None:
    try:
        type(future).set_exception(future, exception)
    except concurrent.futures.InvalidStateError:
        if not future.cancelled():
            raise


def _no_executor(executor: Any, future: Any) -> str:
    kind = type(future)
    return (
        f"run_in: {type(executor).__name__}.submit returned a {kind.__module__}.{kind.__name__}, "
        "and it must be a concurrent.futures.Future; pass an Executor (that of a Dask client is "
        "client.get_executor())"
    )
