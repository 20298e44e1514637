"""Saying where: the context that is meant by an I/O thread, or by no name at all."""

from __future__ import annotations

import asyncio
import threading
from _thread import get_ident
from typing import TYPE_CHECKING, Any, Never, TypeVar

from .._errors import ContextError, WrongThread
from .._os.arguments import hides_more
from .big_lock import shown_thread
from .context import AioContext, whereabouts
from .coroutines import as_coroutine, one_coroutine, shown
from .current import current_context, here
from .foreign_loops import known_context
from .loop import Loop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from .._threads.io_thread import IOThread
    from .task import Task

T = TypeVar("T")

_ANYIO = "anyio._backends._asyncio"  # the module of its worker threads' class


def context_at(place: AioContext | IOThread, what: str) -> AioContext:
    """Return the context that `place` is or has; `what` is the call that was given it."""
    if isinstance(place, AioContext):
        return place
    context = getattr(place, "context", None)
    if isinstance(context, AioContext):
        return context
    hint = ""
    if isinstance(place, asyncio.AbstractEventLoop):
        hint = "; AioContext.attach(loop) is the context of a loop"
    elif hasattr(place, "spawn_each"):
        hint = (
            ", which has several: pool.next() is one of them, pool.spawn(coro) takes them in turn"
        )
    elif isinstance(place, (int, float)) and what in {"block_on", "wait_while"}:
        hint = "; a limit in seconds is given by keyword, timeout="
    message = f"{what} takes an AioContext or an IOThread, got {shown(place)}{hint}"
    raise TypeError(message)


def served_context() -> AioContext | None:
    """Return the context that the calling thread, which is no home, works for; None if for none.

    That is the home whose task has it make a call: through asyncio.to_thread or another
    `run_in_executor`, `to_worker`, `run_in`, or anyio.to_thread. One that has ended, or whose loop
    no thread runs, is ignored.

    Called from: any thread.
    """
    context = here.serves() if here.serves is not None else _of_anyio()
    if context is None or context._closed or not context._is_lived_in():
        return None
    return context


def _of_anyio() -> AioContext | None:
    """Return the context of the loop for which anyio has started this thread, if it did.

    anyio has threads of its own, not the loop's, and starts each for one loop.
    """
    thread = threading.current_thread()
    if type(thread).__module__ != _ANYIO:
        return None
    loop = getattr(thread, "loop", None)
    home = getattr(loop, "home", None)
    if isinstance(home, AioContext):
        return home._itself()
    return None if loop is None else known_context(loop)


def running_context() -> AioContext:
    """Return the current context: `current_context`, for code that needs one.

    Raises ContextError where that is None, as asyncio.get_running_loop does with no loop.

    >>> import homebound
    >>> async def main():
    ...     return homebound.running_context().name
    >>> homebound.run(main())
    'main'

    Called from: any thread.
    """
    context = current_context()
    if context is None:
        message = (
            f"no context is current in thread {shown_thread(get_ident())}: one is current in a "
            "task, in a home thread and with the big lock held. Name one, as in io.spawn(coro), or "
            "give a running loop one by AioContext.attach(loop)"
        )
        raise ContextError(message)
    return context


@hides_more
def create_task(
    coro: Coroutine[Any, Any, T],
    *more: Never,
    home: AioContext | IOThread | None = None,
    name: str | None = None,
    context: Context | None = None,
) -> Task[T]:
    """Make a task of `coro`, at home in `home` (default: here), that begins by itself.

    As `asyncio.create_task`, for type checkers too a homebound Task: it can be woken and moved.
    `context` is the contextvars.Context it runs in. Raises ContextError if no `home` is given and
    no context is current, ContextClosed if `home` has ended (and closes `coro`).

    >>> import homebound
    >>> async def double(number):
    ...     return 2 * number
    >>> async def main():
    ...     return await homebound.create_task(double(21))
    >>> homebound.run(main())
    42

    Called from: any thread.
    """
    if more:
        raise one_coroutine("create_task", coro, more)
    try:
        target = running_context() if home is None else context_at(home, "create_task: home")
    except BaseException:
        as_coroutine(coro).close()  # it is not begun: have no warning that it was never awaited
        raise
    return target.spawn(coro, name=name, context=context)


def _check_use(loop: Loop, used: object, name: str) -> None:
    """Raise if a transport or stream of this loop is used in another home (debug mode)."""
    home = loop.home
    if not home._is_lived_in() or current_context() is home:
        return
    kind = type(used).__name__
    message = (
        f"{kind}.{name}: the home of this {kind.strip('_')} is {home.name!r}, and it was used in "
        f"{whereabouts()}; use it at its home, after `async with on(ctx)` for example"
    )
    raise WrongThread(message)


Loop.check_use = _check_use  # type: ignore[assignment, method-assign]
