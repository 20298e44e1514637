"""The functions that yield to the task: in no others does a coroutine give up control."""

from __future__ import annotations

import asyncio
import types
import warnings
from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop, running_task
from .._errors import ContextError
from .cell import SUSPENDED
from .context import AioContext, whereabouts
from .coroutines import yields_to_task
from .current import current_context
from .places import context_at
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Generator

    from .._threads.io_thread import IOThread


def current_task() -> Task[Any] | None:
    """Return the homebound task that this thread is running, or None.

    >>> import homebound
    >>> print(homebound.current_task())
    None

    Called from: any thread.
    """
    loop = running_loop()
    if loop is None:
        return None
    task = running_task(loop)
    return task if isinstance(task, Task) else None


@yields_to_task
def suspend() -> Generator[Any, Any, None]:
    """Give up control until `wake()` is called on this task.

    If another thread has already woken it, it resumes at once. Raises CancelledError if the task is
    cancelled meanwhile.

    >>> import asyncio, homebound
    >>> async def main():
    ...     async def sleeper():
    ...         await homebound.suspend()
    ...         return "awake"
    ...     task = asyncio.create_task(sleeper())
    ...     await asyncio.sleep(0)
    ...     task.wake()
    ...     return await task
    >>> homebound.run(main())
    'awake'

    Called from: task.
    """
    try:
        yield SUSPENDED
    except RuntimeError:
        _check_runner("suspend()")
        raise


@types.coroutine
def suspend_for(task: Task[Any], wait: Any) -> Generator[Any, Any, None]:
    """Suspend the running task, which is in a queue; `wait` is its place there, and dumps show it.

    If its home ends meanwhile, `wait.abandoned()` is called. Only this function writes
    `Task._wait`. Every wait for a lock calls it, so it does no more than `suspend` and two
    assignments.

    Called from: task.
    """
    try:
        task._wait = wait
        yield SUSPENDED
    finally:
        task._wait = None


def _check_runner(what: str) -> None:
    """Raise ContextError if the yielded object came back because the task is not homebound's."""
    if current_task() is None:
        message = (
            f"{what} was awaited in a task that is not homebound's; make the task with "
            "homebound.create_task, or run it on a loop of homebound.new_event_loop. Called in "
            f"{whereabouts()}"
        )
        raise ContextError(message) from None


@yields_to_task
def move_to(ctx: AioContext | IOThread) -> Generator[Any, Any, None]:
    """Run the rest of this coroutine in `ctx`'s thread; return at once if it is there already.

    contextvars, timeouts and cancellation go along; a cancellation during the move is raised after
    it. Raises ContextClosed, in the old place, if `ctx` has ended.

    >>> import homebound, threading
    >>> async def main(io):
    ...     await homebound.move_to(io.context)
    ...     return threading.current_thread().name
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io))
    'io0'

    Called from: task.
    """
    if current_context() is not ctx:
        place = context_at(ctx, "move_to()")
        if place is current_context():
            return
        try:
            yield place
        except RuntimeError:
            _check_runner("move_to()")
            raise


class on:  # noqa: N801  (reads as a word: async with on(ctx))
    """Run the body of `async with on(ctx):` in `ctx`'s thread, and come back at the end.

    It comes back, too, if it is cancelled on its way there. The entry raises ContextClosed if `ctx`
    has ended; the exit raises it if the original home has ended, and the task stays in `ctx`.

    >>> import homebound, threading
    >>> async def main(io):
    ...     async with homebound.on(io.context):
    ...         there = threading.current_thread().name
    ...     return there, homebound.current_context() is homebound.main_context()
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io))
    ('io0', True)

    Called from: task.
    """

    __slots__ = ("_back", "_ctx", "_entered")

    def __init__(self, ctx: AioContext | IOThread) -> None:
        self._entered = True  # until it is made: nothing is to be said of one that was refused
        self._ctx = context_at(ctx, "on()")
        self._back: AioContext | None = None
        self._entered = False

    async def __aenter__(self) -> None:
        """Move there.

        Called from: task.
        """
        self._entered = True
        back = self._back = current_context()
        try:
            await move_to(self._ctx)
        except asyncio.CancelledError:
            # The task has moved, and the cancellation is raised here: `__aexit__` will not run.
            if back is not None:
                await move_to(back)
            raise

    def __aexit__(self, *_error: object) -> types.CoroutineType[Any, Any, None]:
        """Move back.

        Called from: task.
        """
        assert self._back is not None
        return move_to(self._back)  # type: ignore[return-value]

    def __del__(self) -> None:
        try:
            entered = self._entered
        except AttributeError:  # a call without the argument, which raised
            return
        if not entered:
            message = f"on({self._ctx.name!r}) was never awaited; write `async with on(...):`"
            warnings.warn(message, RuntimeWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<on({self._ctx.name!r})>"
