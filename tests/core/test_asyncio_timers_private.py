"""The private names of asyncio's timers that our loop relies on, tested on asyncio's own."""

from __future__ import annotations

import asyncio
import heapq
import selectors
from asyncio import events
from asyncio.base_events import (  # type: ignore[attr-defined]
    _MIN_CANCELLED_TIMER_HANDLES_FRACTION,
    _MIN_SCHEDULED_TIMER_HANDLES,
)
from typing import Any

from homebound._aio.timers import LONGEST_SLEEP

from .asyncio_loops import iterate


def test_timers_are_a_heap_from_which_the_iteration_takes_what_is_due(loop: Any):
    order: list[str] = []
    now = loop.time()
    second = loop.call_at(now - 1, order.append, "second")
    first = loop.call_at(now - 3, order.append, "first")
    late = loop.call_later(3600, order.append, "late")
    assert loop._scheduled[0] is first
    assert set(loop._scheduled) == {first, second, late}
    assert (first._when, first._scheduled) == (now - 3, True) == (first.when(), True)
    put = events.TimerHandle(now - 2, order.append, ("put",), loop)
    heapq.heappush(loop._scheduled, put)
    put._scheduled = True  # type: ignore[attr-defined]
    iterate(loop)
    assert order == ["first", "put", "second"]
    assert loop._scheduled == [late]
    assert not first._scheduled
    late._when = now - 1
    iterate(loop)
    assert order[3:] == ["late"]


def test_a_timer_is_due_within_the_resolution_of_the_clock(loop: Any):
    ran: list[str] = []
    loop.call_later(3600, ran.append, "timer")
    iterate(loop)
    assert 0 < loop._clock_resolution < 3600
    assert not ran
    loop._clock_resolution = 7200
    iterate(loop)
    assert ran == ["timer"]


def test_call_later_goes_through_call_at():
    """Our loop therefore needs to replace call_at alone."""
    seen: list[Any] = []

    class Recording(asyncio.SelectorEventLoop):
        def call_at(self, when: float, callback: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]
            seen.append(callback)
            return super().call_at(when, callback, *args, **options)

    loop = Recording()
    loop.call_later(3600, print).cancel()
    assert seen == [print]
    loop.close()


def test_cancelled_timers_are_counted_and_dropped_when_they_are_many(loop: Any):
    timers = [loop.call_later(3600, print) for _ in range(_MIN_SCHEDULED_TIMER_HANDLES + 1)]
    most = int(len(timers) * _MIN_CANCELLED_TIMER_HANDLES_FRACTION)
    for timer in timers[-most:]:
        timer.cancel()
    iterate(loop)
    assert loop._timer_cancelled_count == most
    assert len(loop._scheduled) == len(timers)
    timers[-most - 1].cancel()
    iterate(loop)
    assert loop._timer_cancelled_count == 0
    assert set(loop._scheduled) == set(timers[: -most - 1])
    assert not timers[-1]._scheduled


def test_a_cancelled_timer_notifies_the_loop(loop: Any):
    timer = events.TimerHandle(loop.time() + 3600, print, (), loop)
    loop._timer_handle_cancelled(timer)
    assert loop._timer_cancelled_count == 0  # it stands in no heap
    loop.call_later(3600, print).cancel()
    assert loop._timer_cancelled_count == 1
    iterate(loop)  # it was the first of the heap, and is dropped
    assert loop._timer_cancelled_count == 0
    assert not loop._scheduled


def test_the_longest_sleep():
    asked = []

    class Recording(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            asked.append(timeout)
            sleeping.stop()
            return super().select(0)

    selector = Recording()
    sleeping: Any = asyncio.SelectorEventLoop(selector)
    assert sleeping._selector is selector
    sleeping.call_later(LONGEST_SLEEP * 2, print)
    sleeping.run_forever()
    assert asked == [LONGEST_SLEEP]
    sleeping.close()
