"""What will end by itself: what the timers of the loops are about to touch.

asyncio.timeout cancels a task by a timer of its loop, asyncio.wait_for lets go of a future, others
call `task.cancel` or `lock.release` later. Nobody is stuck for good who waits below one of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The callback of asyncio.wait, whose time limit cancels nobody.
_WAITS = "_wait.<locals>._on_completion"


class Timers:
    """What the timers of some loops touch, and `others` that end by themselves, as of now."""

    def __init__(self, loops: Iterable[Any], others: Iterable[object] = ()) -> None:
        self._blind: set[Any] = set()  # the loops that do not show their timers
        self._touched: dict[int, object] = {}  # by id; kept alive, so that no other gets the id
        self._touched.update((id(each), each) for each in others)
        for loop in loops:
            timers = getattr(loop, "_scheduled", None)
            if timers is None:
                self._blind.add(loop)
                continue
            for timer in timers.copy():
                if not timer._cancelled:
                    self._touched.update((id(each), each) for each in _touches(timer))

    def touch(self, thing: object) -> bool:
        """A timer is about to do something to it."""
        return id(thing) in self._touched

    def end(self, task: Any) -> bool:
        """A timer is about to cancel the task, or who waits for it; or that cannot be told."""
        seen: set[int] = set()
        ahead = [task]
        while ahead:
            future = ahead.pop()
            if id(future) in seen:
                continue
            seen.add(id(future))
            if self.touch(future) or _loop_of(future) in self._blind:
                return True
            for callback, _ in tuple(getattr(future, "_callbacks", None) or ()):
                ahead += _futures_of(callback)
        return False


def _loop_of(future: Any) -> Any:
    try:
        return future._loop
    except AttributeError:
        return None


def _touches(timer: Any) -> Iterator[object]:
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


def _futures_of(callback: Any) -> Iterator[Any]:
    """Those whose cancellation is passed on to the future that has the callback: who waits for it.

    A task, gather's and shield's outer futures, wait_for's, the parent of a task group.
    """
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
