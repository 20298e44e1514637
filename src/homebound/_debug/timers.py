"""What will end by itself: what the timers of the loops are about to touch.

asyncio.timeout cancels a task by a timer of its loop, asyncio.wait_for lets go of a future, others
call `task.cancel` or `lock.release` later. Nobody is stuck for good who waits below one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.shapes import cancelled_along, loop_kept_by, timers_of, touched_by

if TYPE_CHECKING:
    from collections.abc import Iterable


class Timers:
    """What the timers of some loops touch, and `others` that end by themselves, as of now."""

    def __init__(self, loops: Iterable[Any], others: Iterable[object] = ()) -> None:
        self._blind: set[Any] = set()  # the loops that do not show their timers
        self._touched: dict[int, object] = {}  # by id; kept alive, so that no other gets the id
        self._touched.update((id(each), each) for each in others)
        for loop in loops:
            timers = timers_of(loop)
            if timers is None:
                self._blind.add(loop)
                continue
            for timer in timers:
                self._touched.update((id(each), each) for each in touched_by(timer))

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
            if self.touch(future) or loop_kept_by(future) in self._blind:
                return True
            ahead += cancelled_along(future)
        return False
