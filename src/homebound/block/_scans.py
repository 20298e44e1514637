"""Looks at where an image has data and holes, made by workers, one at a time for a loop.

So is reading ahead: a qcow2 image's tables tell of what. A look seldom waits. It computes, and
makes hundreds of short system calls, each of which releases the interpreter's lock and takes it
again. Two at once are no faster than one after the other; but each thread that wants the lock makes
the home wait for it longer, after every system call of its own. With 64 of them a client that only
read waited a third of a second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from .._sync.semaphore import Semaphore
from ._of_loop import OfLoop
from ._to_end import to_end

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# After so long a look waits for the storage, and perhaps hangs: the next one begins.
_LONG = 0.05  # seconds


class _Turn:
    """The right of one look to be made. Home thread only."""

    __slots__ = ("_timer", "_turns")

    def __init__(self, turns: Semaphore) -> None:
        self._turns: Semaphore | None = turns  # None once it has been given back
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Give it back after a while, even if the look has not ended."""
        self._timer = asyncio.get_running_loop().call_later(_LONG, self.give_back)

    def give_back(self) -> None:
        """Let the next look begin, if this one has not done so before."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()
        if self._timer is not None:
            self._timer.cancel()


_turns = OfLoop(lambda _: Semaphore(1))


async def scan(fn: Callable[[], T]) -> T:
    """Call `fn` in a worker when it is its turn, as `to_end` does."""
    turns = _turns.here()
    turn = _Turn(turns)
    await turns.acquire()
    try:  # at once: a signal handler that raises in a call here would keep the turn forever
        turn.begin()
        return await to_end(fn)
    finally:
        turn.give_back()
