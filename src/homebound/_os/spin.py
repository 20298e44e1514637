"""Adaptive busy polling: an idle loop looks again for a while before it sleeps.

This saves the wake-up when the next event is near, and pays where other threads have cores of their
own, as on free-threaded builds. How long the loop looks follows how long it really had to wait, by
the rules of QEMU's AioContext.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import perf_counter_ns

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_NS = 4000  # the first step from not spinning at all


class Spin:
    """The time that a home looks before it sleeps. Called from the home thread only."""

    def __init__(self, max_ns: int, grow: int, shrink: int) -> None:
        self.max_ns = max_ns
        self.grow = grow or 2
        self.shrink = shrink
        self.now_ns = 0  # how long it looks at present; 0 <= now_ns <= max_ns
        self._started = 0

    def begin(self, peek: Callable[[], bool], timeout: float | None) -> bool:
        """Call `peek` until it returns True, at most `now_ns` or `timeout`; return its answer."""
        self._started = perf_counter_ns()
        span = self.now_ns if timeout is None else min(self.now_ns, int(timeout * 1e9))
        while perf_counter_ns() - self._started < span:
            if peek():
                self.slept()
                return True
        return False

    def slept(self) -> None:
        """Adjust after a wait: grow or shrink by how long it was, looking and sleeping together."""
        waited = perf_counter_ns() - self._started
        if waited <= self.now_ns:
            return
        if waited > self.max_ns:
            self.now_ns = self.now_ns // self.shrink if self.shrink else 0
        elif self.now_ns < self.max_ns:
            self.now_ns = min(self.now_ns * self.grow if self.now_ns else FIRST_NS, self.max_ns)
