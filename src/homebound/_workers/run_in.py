"""run_in: a call through any executor, whose completion wakes the task at its home."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .._core.cell import Waker
from .._core.coroutines import check_call, shown
from .._core.current import current_context
from .._core.served import made_for, runs_threads
from .._core.traps import current_task, suspend
from .pool import WorkerPool
from .to_worker import to_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.task import Task


P = ParamSpec("P")
T = TypeVar("T")


def _is_prompt(executor: concurrent.futures.Executor) -> bool:
    """Return whether an executor's futures are cancelled at once, in this process.

    A pool of interpreters is one of threads. The standard library loads each kind of pool at its
    first use, that of processes in 10 ms; a kind that is not loaded has no instances.
    """
    return isinstance(executor, WorkerPool) or any(
        isinstance(executor, getattr(sys.modules.get(f"concurrent.futures.{module}"), name, ()))
        for module, name in (("thread", "ThreadPoolExecutor"), ("process", "ProcessPoolExecutor"))
    )


async def run_in(
    executor: concurrent.futures.Executor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call `fn` through any concurrent.futures.Executor, and wait for its result at home.

    The executor may be a thread pool, a process pool, a pool of interpreters (Python 3.14's
    InterpreterPoolExecutor) or that of a Dask cluster. A WorkerPool carries contextvars;
    other executors do as they always do.

    Cancelling the task cancels the executor's future: a call that has not begun is not made; one
    that has begun goes on where the executor cannot stop it, and its result is dropped. Executors
    other than Python's own, a cluster's for example, may need the network to cancel: a worker of
    the home does that, and the task waits for it unless it is cancelled again.

    Raises the exception of `fn`; that of `executor.submit`, after a shutdown for example;
    BrokenExecutor if the executor has lost the process or thread that ran the call; asyncio's
    CancelledError if the future was cancelled by other code; TypeError if `executor` is no Executor
    or its `submit` returned no concurrent.futures.Future, and if `fn` is an `async def`, unless the
    executor is a library's, which may be able to run that. A pool of interpreters raises
    NotShareableError, a TypeError, for a value that cannot be passed between interpreters, with a
    note that names `fn`; ExecutionFailed for an exception of `fn` that cannot be passed; and
    InterpreterNotFoundError if the interpreter has been closed.

    >>> import homebound
    >>> async def main(pool):
    ...     return await homebound.run_in(pool, sum, [1, 2, 3])
    >>> with homebound.WorkerPool() as pool:
    ...     homebound.run(main(pool))
    6

    Called from: task.
    """
    if _is_prompt(executor):  # a cluster may well run an `async def`
        check_call("run_in", fn)
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
    """Hand the call to the executor; TypeError if it is no Executor."""
    try:
        submit = None if isinstance(executor, type) else executor.submit  # a class: not made yet
    except AttributeError:
        submit = None
    if submit is None:
        message = (
            f"run_in takes a concurrent.futures.Executor, got {shown(executor)}; "
            "`to_worker(fn, ...)` has the current context's own pool do it"
        )
        raise TypeError(message)
    context = current_context()
    if context is not None and (isinstance(executor, WorkerPool) or runs_threads(executor)):
        fn = made_for(context, fn)
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
        waits = True  # also if it is done already: a pending cancellation is raised here
        while True:  # not `while waits`: the jump rule
            if not waits:
                break
            waker = Waker(task)
            try:
                future.add_done_callback(waker)
                await suspend()
            except BaseException:
                waker.forget()
                raise
            waits = not future.done()  # else something else woke the task
        if future.cancelled():  # concurrent.futures' own error does not cancel a task
            message = f"run_in: the future of {executor!r} was cancelled"
            raise asyncio.CancelledError(message)  # noqa: TRY301  (handled just below)
        return future.result()
    except asyncio.CancelledError:
        _forgive(future)
        if _is_prompt(executor):
            future.cancel()
        else:
            await _cancel_away(future)
        raise
    finally:
        away.discard(future)
        del future, task, waker  # the traceback of an error would hold them, and they it


def _note_what_was_sent(error: TypeError, fn: Callable[..., Any]) -> None:
    """Name the called function in an error that names only a part of the call.

    For a function of the main script, an interpreter says no more than "args not shareable".
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
    """Cancel a future in a worker, as its callbacks may wait for an answer from another machine."""
    if not future.done():
        try:
            await to_worker(future.cancel)
        except (asyncio.CancelledError, RuntimeError):  # cancelled again, or the workers have ended
            future.cancel()  # if the worker has not


def _forgive(future: concurrent.futures.Future[Any]) -> None:
    """Make a future that is about to be cancelled accept an exception that comes too late.

    When a process dies, 3.11's pool sets an exception on each of its futures and fails at the first
    cancelled one: the waiters for those behind it would wait forever. Later Pythons skip it.
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
