"""Locks for ranges of blocks: overlapping ones wait for each other, in their order."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .._sync.lock import Lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STRIPES = 64
_BLOCKS = 16  # neighbours that share a stripe


class Stripes:
    """A fixed number of locks, dealt out to the blocks in turn. Taken in ascending order."""

    def __init__(self) -> None:
        self._locks = [Lock() for _ in range(_STRIPES)]

    @asynccontextmanager
    async def hold(self, first: int, stop: int) -> AsyncIterator[None]:
        """Hold these blocks, alone, for the block of a `with`."""
        groups = range(first // _BLOCKS, (stop - 1) // _BLOCKS + 1)
        if len(groups) >= _STRIPES:
            wanted = self._locks
        else:
            wanted = [self._locks[n] for n in sorted({group % _STRIPES for group in groups})]
        held: list[Lock] = []
        try:
            for lock in wanted:
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in reversed(held):
                lock.release()
