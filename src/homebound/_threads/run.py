"""The main loop, and loops for those who run them by themselves."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.coroutines import coroutine_of
from .._core.loop import Loop
from .._core.loop_context import LoopContext
from .._core.wind_down import bound_end, wind_down

if TYPE_CHECKING:
    import selectors
    from collections.abc import Awaitable

T = TypeVar("T")


def new_event_loop(selector: selectors.BaseSelector | None = None) -> asyncio.SelectorEventLoop:
    """A loop for asyncio.Runner, uvicorn, anyio, pytest plugins: asyncio's, with a home.

    The thread that runs it is the home of its context (`AioContext.attach(loop)` returns that
    one). Run by the process's main thread while there is no main context, it is the main one.

    >>> import asyncio, homebound
    >>> async def main():
    ...     return homebound.current_context() is not None
    >>> with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
    ...     runner.run(main())
    True

    Called from: any thread.
    """
    return _home_loop(selector, None).loop


def _home_loop(selector: selectors.BaseSelector | None, name: str | None) -> LoopContext:
    return LoopContext(Loop(selector), name)


def run(
    main: Awaitable[T], *, debug: bool | None = None, shutdown_timeout: float | None = None
) -> T:
    """Run a coroutine like asyncio.run; this thread becomes the main context's home meanwhile.

    It holds the big lock at all times but while its loop sleeps. `main` may be any awaitable, as
    asyncio's may be from Python 3.14 on. `debug` is asyncio's debug mode.

    At the end its tasks are cancelled and waited for, asynchronous generators and workers shut
    down: for `shutdown_timeout` seconds at most, if given. What has not ended by then is abandoned:
    the loop's exception handler is told what that is, with stacks, and what waits for it gets
    ContextClosed. (Not so a call that blocks the main thread, and the threads of a
    concurrent.futures executor, for which Python itself waits at exit.)

    Raises ContextError if there is a main context already, RuntimeError if a loop runs in this
    thread, ValueError if `shutdown_timeout` is negative, and what asyncio does if `main` is no
    awaitable: TypeError, before Python 3.14 ValueError.

    >>> import homebound
    >>> async def main():
    ...     return "done"
    >>> homebound.run(main())
    'done'

    Called from: any thread.
    """
    if shutdown_timeout is not None and not shutdown_timeout >= 0:
        if asyncio.iscoroutine(main):
            main.close()
        message = f"run: shutdown_timeout is {shutdown_timeout}; it must be 0 or more seconds"
        raise ValueError(message)
    context = _home_loop(None, "main")
    bound_end(context, shutdown_timeout)
    coro: Any = main
    if inspect.isawaitable(coro):
        coro = coroutine_of(coro)
    try:
        with context.inhabit(as_main=True):
            runner = asyncio.Runner(debug=debug, loop_factory=lambda: context.loop)
            try:
                return runner.run(coro)  # type: ignore[no-any-return]
            finally:
                # In the place of Runner.close, which gives up if something stops the loop again.
                if not context.loop.is_closed():  # as in a forked process
                    wind_down(context, "unhandled exception during asyncio.run() shutdown")
    finally:
        if asyncio.iscoroutine(coro):
            coro.close()  # no-op unless it never began
        if not context.loop.is_closed():
            context.loop.close()
