"""asyncio's timers in a loop: its heap and its handles, by the clock in force."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from asyncio.base_events import (  # type: ignore[attr-defined]
    _MIN_CANCELLED_TIMER_HANDLES_FRACTION,
    _MIN_SCHEDULED_TIMER_HANDLES,
)
from asyncio.base_events import MAXIMUM_SELECT_TIMEOUT as _LONGEST  # type: ignore[attr-defined]
from itertools import filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .._os.clock import clock
from .handles import ErrandTimer

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from .._core.loop_context import LoopContext
    from .._core.mailbox import Entry

LONGEST_SLEEP: float = _LONGEST  # seconds that a loop sleeps at most


def _pop(scheduled: list[Any], first: Any) -> bool:
    """Take the first timer from the heap; False if a finaliser that turned the loop has done so."""
    try:
        timer = heapq.heappop(scheduled)
    except IndexError:
        return False
    if timer is not first:
        heapq.heappush(scheduled, timer)
    return timer is first


class TimedLoop(asyncio.SelectorEventLoop):
    """The part of asyncio's selector loop that knows the time."""

    # Timers, as a heap; asyncio pushes them and counts the cancelled ones in the next field.
    _scheduled: list[Any]
    _timer_cancelled_count: int
    _clock_resolution: float
    _check_closed: Callable[[], None]
    _ready: deque[Entry]  # the mailbox
    home: LoopContext

    def time(self) -> float:
        """Return the time in seconds, as asyncio's, of the clock in force."""
        return clock.time()

    def timeout_until(self, until: float | None) -> float | None:
        """Return how many seconds to sleep until loop time `until`; None: forever."""
        if until is None:
            return None
        left = until - self.time()
        if clock.stands and left > 0:
            return None  # the thread that moves the clock wakes the loop
        return min(max(0.0, left), LONGEST_SLEEP)

    def _errand_at(self, when: float, errand: Any) -> ErrandTimer:
        """Do as call_at, for an errand."""
        self._check_closed()
        timer = ErrandTimer(when, errand, (), self, contextvars.Context())
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def next_timer(self) -> float | None:
        """Return when the next timer is due, dropping cancelled ones before it."""
        scheduled = self._scheduled
        while scheduled and (timer := scheduled[0])._cancelled:
            if _pop(scheduled, timer):
                self._timer_cancelled_count -= 1
                timer._scheduled = False
        when: float | None = scheduled[0]._when if scheduled else None
        return when

    def earliest_timer(self) -> float | None:
        """Return when the next timer is due, and change nothing: for any thread as it sleeps."""
        pending = [timer._when for timer in tuple(self._scheduled) if not timer._cancelled]
        return min(pending, default=None)

    def pending_timers(self) -> list[tuple[float, Any]]:
        """Return when each timer that was not cancelled is due, and what it calls. Home."""
        left = [timer for timer in tuple(self._scheduled) if not timer._cancelled]
        return [(timer._when, timer._callback) for timer in left]

    def _collect_timers(self) -> None:
        """Queue the timers that are due, and tidy the heap when cancelled ones fill it."""
        scheduled = self._scheduled
        count = len(scheduled)
        if (
            count > _MIN_SCHEDULED_TIMER_HANDLES
            and self._timer_cancelled_count / count > _MIN_CANCELLED_TIMER_HANDLES_FRACTION
        ):
            self._drop_cancelled()
        now = self.time()
        end = now + self._clock_resolution
        if end == now:  # at so late a time, floats are further apart than the clock's ticks
            end = math.nextafter(now, math.inf)
        while scheduled and not (timer := scheduled[0])._when >= end:  # NaN is due, as in asyncio
            if not _pop(scheduled, timer):
                continue
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

    def _drop_cancelled(self) -> None:
        """Remove the cancelled timers from the heap."""
        stand_in = self.home._stand_in
        scheduled = self._scheduled
        lent = stand_in.lent
        try:
            stand_in.lent = True  # so a signal handler runs no task, which might add a timer
            kept = list(filterfalse(attrgetter("_cancelled"), scheduled))
            for timer in scheduled:
                timer._scheduled = not timer._cancelled
            scheduled[:] = kept
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        finally:
            stand_in.lent = lent
