"""Loops of others: the context that each has, and how we hear that one has been closed.

asyncio tells nobody of a loop's end, and some loops (rloop's, qasync's) take posts after it without
a word. So `close` of such a loop is covered, on the instance, by a `LoopEnd`, which closes the loop
and then tells those who wait for something there. It is found by an attribute of the loop: whoever
covers `close` once more does not hide it.

What cannot be covered: a loop of a class without an instance `__dict__`, and a call of the class's
`close` itself. Such an end is noticed by who posts there next, if the loop refuses posts then.
"""

from __future__ import annotations

import _thread
import os
import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .._aio.tasks import running_loop
from .current import ask, here, set_home

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .context import AioContext
    from .far import FarWait

_NAME = "_homebound_end"  # the attribute of a loop that leads to its LoopEnd

_making = _thread.RLock()  # guards who makes a LoopEnd, and who gives it its context
_uncovered: WeakKeyDictionary[Any, LoopEnd] = WeakKeyDictionary()  # under _making


class LoopEnd:
    """Called as `loop.close()`: closes the loop, and tells whom that concerns."""

    __slots__ = ("__weakref__", "_close", "_context", "_loop", "closed", "covers", "far_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: asyncio.AbstractEventLoop | None = loop  # None once it is closed
        # Somebody else's cover, to be called in the place of the class's method.
        self._close: Callable[[], None] | None = getattr(loop, "__dict__", {}).get("close")
        # The loop's context; once it is closed a weak reference, so as not to make a circle.
        # Written under _making, or by who closes the loop.
        self._context: AioContext | weakref.ref[AioContext] | None = None
        # Those who wait for futures of the loop from elsewhere. Any thread adds; whoever takes one
        # out answers it. Entered first, then looked at `closed`: pairs with `tell`.
        self.far_waits: set[FarWait] = set()
        self.closed = loop.is_closed()  # set once, by who closes the loop
        self.covers = False  # whether we hear of `close`

    @property
    def context(self) -> AioContext | None:
        """The loop's context, if it has one, or had one that somebody still knows."""
        context = self._context
        return context() if isinstance(context, weakref.ref) else context

    def __call__(self) -> None:
        """Close the loop."""
        loop = self._loop
        if loop is None:
            return  # a second time
        if self._close is not None:
            self._close()
        else:
            type(loop).close(loop)
        if loop.is_closed():
            self.tell()

    def tell(self) -> None:
        """The loop is closed: let who waits for something there know."""
        self.closed = True
        context = self.context
        if context is not None:
            context._close()
            self._context = weakref.ref(context)
        self._loop = self._close = None
        abandon(self.far_waits)


def abandon(waits: set[FarWait]) -> None:
    """Tell each who waits for a future of a loop that has ended, once."""
    while waits:
        try:
            wait = waits.pop()
        except KeyError:
            return  # it has just been answered
        wait.abandon()


def end_of(loop: asyncio.AbstractEventLoop) -> LoopEnd:
    """The loop's LoopEnd, made now if it has none. Called from: any thread."""
    end: LoopEnd | None = getattr(loop, _NAME, None)
    if end is not None:
        return end
    with _making:
        end = getattr(loop, _NAME, None) or _uncovered.get(loop)
        if end is None:
            end = _make(loop)
    return end


def _make(loop: Any) -> LoopEnd:
    end = LoopEnd(loop)
    try:
        setattr(loop, _NAME, end)
        loop.close = end
        end.covers = True
    except (AttributeError, TypeError):
        end._loop = None  # it would keep its own key alive
        _uncovered[loop] = end
    return end


def context_of(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[asyncio.AbstractEventLoop, LoopEnd], AioContext],
) -> AioContext | None:
    """The loop's context, made now if it has none; None if it is closed, and nobody knows it."""
    end = end_of(loop)
    with _making:
        context = end.context
        if context is None and not end.closed:
            context = end._context = make(loop, end)
    return context


def _resident(context: AioContext | None) -> AioContext | None:
    """Who is current in a thread that is no home, or was one with `context` of somebody's loop.

    We are not told when a loop of somebody else's starts or stops. The loop that runs in this
    thread is known to asyncio, so that is what counts.
    """
    loop = running_loop()
    if context is not None:
        if context.loop is loop:
            return context
        set_home(None)
        if here.context is not None:  # it holds the big lock
            return here.context
    if loop is not None:
        end: LoopEnd | None = getattr(loop, _NAME, None)
        tenant = None if end is None or end.closed else end.context
        if tenant is not None:
            tenant._move_in()
    return here.context


def _stopped(context: AioContext) -> bool:
    """Whether the loop runs nowhere. One that was told to stop may say so while it still runs."""
    loop = context.loop
    return running_loop() is not loop and not loop.is_running()


ask.resident = _resident
ask.stopped = _stopped


def _begin_as_child() -> None:
    global _making  # noqa: PLW0603  (a thread of the parent's may have held it)
    _making = _thread.RLock()


os.register_at_fork(after_in_child=_begin_as_child)
