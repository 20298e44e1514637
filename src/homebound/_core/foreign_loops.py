"""Foreign loops: the context of each, and how its end is noticed.

asyncio does not announce a loop's end, and some loops (rloop's, qasync's) accept posts after it
without an error. So `close` of such a loop is replaced, on the instance, by a `LoopEnd`, which
closes the loop and then notifies what waits for something there. It is found by an attribute of the
loop, so a library that replaces `close` once more does not hide it.

Two ends are not noticed at once: that of a loop whose class has no instance `__dict__`, and a call
of the class's own `close`. The next post notices them, if the loop then refuses posts.
"""

from __future__ import annotations

import weakref
from asyncio import iscoroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .._aio.tasks import running_loop
from .._errors import ContextError
from .._os.guard import new_guard
from .._os.process import AtFork, at_fork
from .coroutines import shown
from .current import here, hooks, set_home

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .context import AioContext
    from .far import FarWait

_NAME = "_homebound_end"  # the attribute of a loop that leads to its LoopEnd

_making = new_guard()  # held to make a LoopEnd and to give it its context
_uncovered: WeakKeyDictionary[Any, LoopEnd] = WeakKeyDictionary()  # under _making


class LoopEnd:
    """A replacement for `loop.close`: closes the loop, and notifies what waits for it."""

    __slots__ = ("__weakref__", "_close", "_context", "_loop", "closed", "covers", "far_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: asyncio.AbstractEventLoop | None = loop  # None once it is closed
        # Another library's replacement, called instead of the class's method.
        self._close: Callable[[], None] | None = getattr(loop, "__dict__", {}).get("close")
        # The loop's context; a weak reference once it is closed, which avoids a cycle. Written
        # under _making, or by the closing thread.
        self._context: AioContext | weakref.ref[AioContext] | None = None
        # The waits for futures of the loop from elsewhere. Any thread adds; the thread that takes
        # one out answers it. Added first, then `closed` is looked at: pairs with `tell`.
        self.far_waits: set[FarWait] = set()
        self.closed = loop.is_closed()  # set once, by the closing thread
        self.covers = False  # whether `close` is replaced

    @property
    def context(self) -> AioContext | None:
        """The loop's context, if it has one, or had one that is still referred to."""
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
        """Notify what waits for something on the loop, which is closed."""
        self.closed = True
        context = self.context
        if context is not None:
            context._close()
            self._context = weakref.ref(context)
        self._loop = self._close = None
        abandon(self.far_waits)


def abandon(waits: set[FarWait]) -> None:
    """Abandon each wait for a future of a loop that has ended, once."""
    while waits:
        try:
            wait = waits.pop()
        except KeyError:
            return  # the last one has just been answered
        wait.abandon()


def end_of(loop: asyncio.AbstractEventLoop) -> LoopEnd:
    """Return the loop's LoopEnd, made now if it has none. Called from: any thread."""
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


def known_context(loop: asyncio.AbstractEventLoop) -> AioContext | None:
    """Return the loop's context, if it has one. Called from: any thread."""
    end: LoopEnd | None = getattr(loop, _NAME, None)
    return None if end is None or end.closed else end.context


def no_bare_context() -> TypeError:
    """Return the error of AioContext(...): what it makes has no way to run.

    Called from: any thread.
    """
    return TypeError(
        "a context is made with its loop, by run(), IOThread or new_event_loop(); "
        "AioContext.attach(loop) makes one for a loop that there is"
    )


def check_loop(what: str, loop: object) -> None:
    """Raise TypeError for what is clearly no asyncio loop; `what` begins the message.

    Called from: any thread.
    """
    is_class = isinstance(loop, type)
    if hasattr(loop, "call_soon_threadsafe") and hasattr(loop, "is_closed") and not is_class:
        return  # one that does not derive from asyncio's
    if iscoroutine(loop):
        text = shown(loop)
        loop.close()  # it is not awaited
    else:
        text = shown(loop) + ("; call it: it makes one" if is_class else "")
    message = f"{what} an asyncio event loop, got {text}"
    raise TypeError(message)


def context_of(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[asyncio.AbstractEventLoop, LoopEnd], AioContext],
) -> AioContext | None:
    """Return the loop's context, made now if it has none; None for a closed loop without one."""
    end = end_of(loop)
    with _making:
        context = end.context
        if context is None and not end.closed:
            context = end._context = make(loop, end)
    return context


def _resident(context: AioContext | None) -> AioContext | None:
    """Return what is current in a thread that is no home, or was a foreign loop's: `context`'s.

    Nothing announces when a foreign loop starts or stops, but asyncio knows the loop that runs in
    this thread, so that decides.
    """
    loop = running_loop()
    if context is not None:
        if context.loop is loop:
            return context
        set_home(None)
        if here.context is not None:  # it holds the big lock
            return here.context
    if loop is not None:
        tenant = known_context(loop)
        if tenant is not None:
            tenant._move_in()
    return here.context


def _stopped(context: AioContext) -> bool:
    """Return whether the loop runs nowhere. One told to stop may say so while it still runs."""
    loop = context.loop
    return running_loop() is not loop and not loop.is_running()


hooks.resident = _resident
hooks.stopped = _stopped


def _begin_as_child() -> None:
    global _making  # noqa: PLW0603  (a thread of the parent's may have held it)
    _making = new_guard()


at_fork(AtFork.LOOP_ENDS, _begin_as_child)


def make_tasks_of(loop: asyncio.AbstractEventLoop, own_factory: Callable[..., Any]) -> None:
    """Have a foreign loop make homebound tasks, with that task factory."""
    factory = loop.get_task_factory()
    if factory is None:
        loop.set_task_factory(own_factory)
    elif factory is not own_factory:
        message = (
            f"AioContext.attach(tasks=True): {loop!r} has a task factory, {shown(factory)}, "
            "which makes its tasks; have that one make a homebound.Task(coro, loop=loop)"
        )
        raise ContextError(message)
