"""The turns of a home's connections that have more to do than one turn allows, all together.

A connection whose turn is over goes to the end of a queue. An iteration of the loop takes turns
from it until TURN_SECONDS are spent, so a home's other connections wait no longer for sixteen
clients that flood it than for one. A client that sends little is never in the queue: what it sends
is served when it is received. So is what others send, for as long again in an iteration.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..._os.clock import perf_counter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# What a turn may take, and what all turns that an iteration takes from the queue may take, but for
# the last one, which may take as long again.
TURN_SECONDS = 0.001


class Turns:
    """The queue of one home. Home thread only."""

    __slots__ = ("_queue", "_running", "_until")

    def __init__(self) -> None:
        # A connection is in it twice at most, to serve requests and to start those that wait for
        # the disk: it asks again for either only after that turn has begun.
        self._queue: deque[Callable[[], None]] = deque()
        # While anything is in the queue, _run is queued in the loop, or it runs; and after `take`.
        self._running = False
        self._until: float | None = None  # when `take` ends in this iteration; None: not begun

    def ask(self, loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
        """Have `turn` called in an iteration to come, after those that asked before."""
        self._queue.append(turn)
        if not self._running:
            self._running = True
            loop.call_soon(self._run, loop)

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a turn may begin at once: for TURN_SECONDS after the first that did.

        Not while connections wait in the queue, or all that send would come before them.
        """
        if self._queue:
            return False
        now = perf_counter()
        if self._until is None:
            self._until = now + TURN_SECONDS
            if not self._running:
                self._running = True
                loop.call_soon(self._run, loop)
        return now < self._until

    @property
    def wanted(self) -> bool:
        """True if connections wait for turns."""
        return bool(self._queue)

    def seconds(self) -> float:
        """Return how long a turn that begins now may take: less if others wait for theirs."""
        return TURN_SECONDS / (1 + len(self._queue))

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take turns, but none of those that are asked for meanwhile: they follow other events."""
        queue, began = self._queue, perf_counter()
        self._until = None
        try:
            for _ in range(len(queue)):
                queue.popleft()()
                if perf_counter() - began <= TURN_SECONDS:
                    continue
                break  # last: the jump rule
        finally:  # what a turn raises is reported by the loop, and ends no other turn
            self._running = bool(queue)
            if queue:
                loop.call_soon(self._run, loop)
