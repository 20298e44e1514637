"""run: the main loop. new_event_loop: a loop for any other runner."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from .._aio.tasks import running_loop
from .._core.context import whereabouts
from .._core.coroutines import coroutine_of
from .._core.current import current_context
from .._core.loop import Loop
from .._core.wind_down import bound_end, close_surely, wind_down
from .._errors import WrongThread

if TYPE_CHECKING:
    import selectors
    from collections.abc import Awaitable

    from .._core.context import AioContext

T = TypeVar("T")

_NOT_A_COROUTINE = TypeError if sys.version_info >= (3, 14) else ValueError  # asyncio.run's


def new_event_loop(selector: selectors.BaseSelector | None = None) -> asyncio.SelectorEventLoop:
    """Return a new loop with a home, for asyncio.Runner, uvicorn, anyio and pytest plugins.

    The thread that runs the loop is the home of its context, which `AioContext.attach(loop)`
    returns. If the process's main thread runs it while there is no main context, its context is
    the main one.

    >>> import asyncio, homebound
    >>> async def main():
    ...     return homebound.current_context() is not None
    >>> with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
    ...     runner.run(main())
    True

    Called from: any thread.
    """
    return Loop(selector)


def _close(main: object) -> None:
    """Close a coroutine that has not begun, so that Python does not warn of it."""
    if asyncio.iscoroutine(main):
        main.close()


def _end(context: AioContext) -> None:
    failure = "unhandled exception during asyncio.run() shutdown"
    try:
        wind_down(context, failure)
    except BaseException:
        if not context.loop.is_closed():  # a signal handler raised before it had begun
            wind_down(context, failure)
        raise


def _runs_a_loop() -> str:
    wait = "block_on(x)" if current_context() is not None else "block_on(x, io), with an IOThread,"
    return (
        "run() cannot be called while a loop runs in the same thread: `await` it; in a function, "
        f"{wait} waits for it. Called in {whereabouts()}"
    )


def run(
    main: Awaitable[T], *, debug: bool | None = None, shutdown_timeout: float | None = None
) -> T:
    """Run a coroutine as asyncio.run does, with this thread as the main context's home meanwhile.

    The thread holds the big lock at all times except while its loop sleeps. `main` may be any
    awaitable, as in asyncio since Python 3.14. `debug` is asyncio's debug mode: it also watches for
    stalls, as `watch_stalls` does, and raises WrongThread for a transport or stream of asyncio's
    that is used in another home than its own.

    At the end tasks are cancelled and waited for, asynchronous generators and workers shut down:
    for at most `shutdown_timeout` seconds, if given. What has not ended by then is abandoned: the
    loop's exception handler gets a report with stacks, and its waiters get ContextClosed. So does a
    task that waits in a call (block_on, wait_while, poll, a lock's ..._sync), there and in each
    such call that it makes afterwards. (This does not help against a call that blocks the main
    thread, or the threads of a concurrent.futures executor, for which Python itself waits at exit.)

    Raises ContextError if there is a main context already, RuntimeError if a loop runs in this
    thread, ValueError if `shutdown_timeout` is negative, and as asyncio does if `main` is no
    awaitable: TypeError, before Python 3.14 ValueError.

    >>> import homebound
    >>> async def main():
    ...     return "done"
    >>> homebound.run(main())
    'done'

    Called from: any thread.
    """
    if shutdown_timeout is not None and not shutdown_timeout >= 0:
        _close(main)
        message = f"run: shutdown_timeout is {shutdown_timeout}; it must be 0 or more seconds"
        raise ValueError(message)
    if running_loop() is not None:
        _close(main)
        raise WrongThread(_runs_a_loop())
    try:
        coro: Any = coroutine_of(main, "run: a coroutine")
    except TypeError as error:
        raise _NOT_A_COROUTINE(str(error)) from None
    context = Loop(name="main").home
    bound_end(context, shutdown_timeout)
    try:
        with context.inhabit(as_main=True):
            runner = asyncio.Runner(debug=debug, loop_factory=lambda: context.loop)
            try:
                return runner.run(coro)  # type: ignore[no-any-return]
            finally:
                # Instead of Runner.close, which gives up if something stops the loop again.
                if not context.loop.is_closed():  # it is in a forked process
                    _end(context)
    finally:
        if asyncio.iscoroutine(coro):
            coro.close()  # a no-op unless it never began
        close_surely(context)
