"""Private fields of asyncio's objects that are only read, for `dump` and the search for deadlocks.

A field that is not found is left out: on a Python or a loop that does things another way, less is
reported. tests/core/test_asyncio_shapes.py pins what is read. The threads' frames are read here
too.
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

# Returns the innermost frame of each thread, keyed by the thread's ident.
thread_frames: Callable[[], dict[int, FrameType]] = sys._current_frames

# The callback of asyncio.wait, whose timeout cancels nothing.
_WAITS = "_wait.<locals>._on_completion"


def waits_for(task: Any) -> Any:
    """Return the future that an asyncio task awaits; None if it awaits none, or hides it."""
    return getattr(task, "_fut_waiter", None)


def loop_kept_by(future: Any) -> Any:
    """Return the loop that a future was made for; None if it hides it."""
    return getattr(future, "_loop", None)


def thread_that_runs(loop: Any) -> int | None:
    """Return the ident of the thread that runs a loop; None if none does, or the loop hides it."""
    return getattr(loop, "_thread_id", None)


def gathered(future: Any) -> list[Any] | None:
    """Return the children of a future that gather() made; None for any other future."""
    children = getattr(future, "_children", None)
    return children if type(children) is list else None


def timers_of(loop: Any) -> list[Any] | None:
    """Return a loop's timers that are not cancelled; None if it hides them."""
    timers = getattr(loop, "_scheduled", None)
    return None if timers is None else [each for each in timers.copy() if not each._cancelled]


def sleeps(loop: Any) -> dict[int, tuple[object, float]]:
    """Return when the timers of a loop end what each has been given first, by its id.

    For the asyncio.sleep of a task that is the future that the task awaits.
    """
    found = {}
    for timer in timers_of(loop) or ():
        args = timer._args  # None, once it is cancelled
        if args:
            found[id(args[0])] = (args[0], timer.when())
    return found


def touched_by(timer: Any) -> Iterator[object]:
    """Yield the objects that a timer's callback is known to work on."""
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
    """Yield the futures that wait for `future` and pass their cancellation on to it.

    A task, the outer future of gather and shield, that of wait_for, a task group's parent.
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
