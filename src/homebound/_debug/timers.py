"""The waits that a timer of a loop will end.

asyncio.timeout cancels a task by a timer of its loop, asyncio.wait_for ends the wait for a future,
other code calls `task.cancel` or `lock.release` later. A task that waits below one of these is not
stuck forever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.shapes import cancelled_along, loop_kept_by, timers_of, touched_by

if TYPE_CHECKING:
    from collections.abc import Iterable


class Timers:
    """The objects that the timers of some loops touch now, and `others` that end by themselves."""

    def __init__(self, loops: Iterable[Any], others: Iterable[object] = ()) -> None:
        self._blind: set[Any] = set()  # the loops whose timers cannot be seen
        self._touched: dict[int, object] = {}  # by id; kept alive, so that the id stays its
        self._touched.update((id(each), each) for each in others)
        for loop in loops:
            timers = timers_of(loop)
            if timers is None:
                self._blind.add(loop)
                continue
            for timer in timers:
                self._touched.update((id(each), each) for each in touched_by(timer))

    def touch(self, thing: object) -> bool:
        """Return True if a timer is going to do something to `thing`."""
        return id(thing) in self._touched

    def end(self, task: Any) -> bool:
        """Return True if a timer is going to cancel the task, or one that awaits it, or may be."""
        seen: set[int] = set()
        ahead = [task]
        while ahead:
            future = ahead.pop()
            if id(future) in seen:
                continue
            seen.add(id(future))
            if self.touch(future) or loop_kept_by(future) in self._blind:
                return True
            ahead += cancelled_along(future)
        return False
