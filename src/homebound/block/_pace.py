"""Long work in memory, done a slice at a time: all that a loop has of it, together.

Copying, clearing and freeing memory never wait, so they are done in the thread of the loop that
asks for them, where the rest of that loop waits meanwhile. A loop gives them one slice of time in
each iteration, however many operations there are; these take turns with it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING

from .._os.clock import perf_counter
from ._of_loop import OfLoop

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE_SECONDS = 0.001
SLICE_BYTES = 8 << 20  # the same, where a clock that stands or a very fast machine sets no limit
PIECE = 256 << 10  # bytes that are copied or cleared between two looks at the clock
_LITTLE = SLICE_SECONDS / 16  # seconds; a piece that took no longer may be followed by a larger one


class Pace:
    """One loop's slices. Home thread only."""

    __slots__ = ("_bytes", "_loop", "_renewing", "_seconds", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        # Spent in this iteration.
        self._seconds = 0.0
        self._bytes = 0
        # Operations that wait for a slice. While there are any, or anything is spent, _renew is
        # queued in the loop.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def turn(self) -> None:
        """Wait until there is time: at once if there is and no other operation waits for it."""
        if not (self._waiting or self._is_spent()):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._renew_later()
        await turn

    def work(self, do: Callable[[int, int], None], start: int, end: int, piece: int) -> int:
        """Do at least one piece, and others until the slice is spent; how far it has come."""
        size = min(piece, PIECE)
        began = perf_counter()
        while start < end and size:
            stop = min(start + size, end)
            do(start, stop)
            ended = perf_counter()
            took = ended - began
            self._seconds += took
            self._bytes += min(stop - start, PIECE)  # a larger piece is one of little work
            if self._is_spent():
                size = 0
            elif size < piece and took < _LITTLE:
                size *= 2
            start, began = stop, ended
        self._renew_later()
        return start

    def _is_spent(self) -> bool:
        return self._seconds >= SLICE_SECONDS or self._bytes >= SLICE_BYTES

    def _renew_later(self) -> None:
        loop = self._loop()
        if not self._renewing and loop is not None:
            self._renewing = True
            loop.call_soon(self._renew)

    def _renew(self) -> None:
        """Begin an iteration: the operation that has waited longest gets its slice."""
        self._renewing = False
        self._seconds = 0.0
        self._bytes = 0
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                self._renew_later()
                return


_paces = OfLoop(Pace)


async def in_pieces(
    do: Callable[[int, int], None], start: int, end: int, *, piece: int = PIECE
) -> None:
    """Have `do(from, to)` work its way from `start` to `end`, in slices of the running loop.

    With a `piece` that is larger than usual the pieces grow up to it as long as they go quickly.
    """
    while start < end:
        pace = _paces.here()
        await pace.turn()
        start = pace.work(do, start, end, piece)
