"""What asyncio's objects hold on to inside: read by `dump` and by the search for deadlocks.

Like loop.py, but nothing here changes anything, and what is not found is left out: on
a Python, or a loop, that does it another way, less is told. tests/core/test_asyncio_shapes.py pins
what is read. Where each thread stands is read here, too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# The innermost frame of each thread, by the thread's ident: where it stands now.
thread_frames: Callable[[], dict[int, FrameType]] = sys._current_frames

# The callback of asyncio.wait, whose time limit cancels nobody.
_WAITS = "_wait.<locals>._on_completion"


def waits_for(task: Any) -> Any:
    """The future that a task of asyncio's awaits; None if it awaits none, or does not tell."""
    return getattr(task, "_fut_waiter", None)


def loop_kept_by(future: Any) -> Any:
    """The loop that it was made for; None if it does not say so."""
    return getattr(future, "_loop", None)


def gathered(future: Any) -> list[Any] | None:
    """The futures that gather() has put together into this one; None if it is no such one."""
    children = getattr(future, "_children", None)
    return children if type(children) is list else None


def timers_of(loop: Any) -> list[Any] | None:
    """Its timers that are not cancelled; None if it hides them."""
    timers = getattr(loop, "_scheduled", None)
    return None if timers is None else [each for each in timers.copy() if not each._cancelled]


def sleeps_until(loop: Any, future: Any) -> float | None:
    """When a timer of `loop` ends the asyncio.sleep that waits for `future`, in loop time."""
    for timer in timers_of(loop) or ():
        args = timer._args
        if args and args[0] is future:
            when: float = timer.when()
            return when
    return None


def touched_by(timer: Any) -> Iterator[object]:
    """The objects that its callback is known to work on, if there are any."""
    callback = timer._callback
    yield from timer._args or ()
    while isinstance(callback, partial):
        yield from callback.args
        callback = callback.func
    owner = getattr(callback, "__self__", callback)
    yield owner
    for name in ("_task", "_parent_task", "_host_task"):  # asyncio's Timeout, anyio's CancelScope
        yield getattr(owner, name, None)
    tasks = getattr(owner, "_tasks", None)
    if isinstance(tasks, Collection):
        yield from tuple(tasks)


def cancelled_along(future: Any) -> Iterator[Any]:
    """Those whose cancellation is passed on to `future`: who waits for it.

    A task, gather's and shield's outer futures, wait_for's, the parent of a task group.
    """
    for callback, _ in tuple(getattr(future, "_callbacks", None) or ()):
        yield from _futures_of(callback)


def _futures_of(callback: Any) -> Iterator[Any]:
    while isinstance(callback, partial):
        yield from (each for each in callback.args if asyncio.isfuture(each))
        callback = callback.func
    owner = getattr(callback, "__self__", callback)
    group = getattr(owner, "_group", owner)
    for each in (owner, getattr(group, "_parent", None), getattr(group, "_parent_task", None)):
        if asyncio.isfuture(each):
            yield each
    if getattr(callback, "__qualname__", "") == _WAITS:
        return
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if asyncio.isfuture(content):
            yield content
