"""What other threads post to a home that was asked to end: no tasks, and no more than it can run.

The home runs what it finds in the mailbox, in order, and with it the steps of its own end. Threads
that post without a pause put in more during a batch than the batch had, so each would take longer
than the last, for ever: such threads are made to pause. The hot paths know nothing of this: the
methods that refuse and pause are put on the instances, and taken away as the loop is closed.
"""

from __future__ import annotations

from time import sleep
from types import MethodType
from typing import TYPE_CHECKING, Any

from .._aio.handles import starts_coroutine
from .current import current_context, here
from .loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import AioContext

_MANY = 1000  # entries in a mailbox, with which a post takes a pause
_PAUSE = 0.001  # seconds; the thread may hold a lock that the home waits for, so it goes on


def refuse_tasks(context: AioContext) -> None:
    """Refuse new tasks of other threads, which could hold up the end. May be repeated.

    Called from: any thread.
    """
    context._refusing = True
    loop = context.loop
    if isinstance(loop, Loop):
        # asyncio's run_coroutine_threadsafe calls it. A check in the method would cost each call an
        # eighth.
        loop.call_soon_threadsafe = MethodType(_call_soon_threadsafe, loop)  # type: ignore[method-assign]
        pause_posts(context)
        if loop.is_closed():  # after that: pairs with the end of `close`
            context.end_late_posts()  # type: ignore[attr-defined]


def pause_posts(context: AioContext) -> None:
    """Make other threads pause before they post, if they have posted much. May be repeated.

    Not on a foreign loop, where each post is a system call, which slows threads down enough.

    Called from: any thread.
    """
    if len(context._ready) > _MANY:
        context.call_soon = MethodType(_call_soon, context)  # type: ignore[method-assign]


def _call_soon_threadsafe(
    loop: Loop, callback: Callable[..., object], *args: Any, **options: Any
) -> Any:
    if here.context is not loop.home:
        if starts_coroutine(callback):
            loop.home._refuse()
        _pause(loop.home)
    return type(loop).call_soon_threadsafe(loop, callback, *args, **options)


def _call_soon(context: AioContext, callback: Callable[..., object], *args: Any) -> Any:
    _pause(context)
    return type(context).call_soon(context, callback, *args)


def _pause(context: AioContext) -> None:
    if len(context._ready) > _MANY and current_context() is not context:
        sleep(_PAUSE)
