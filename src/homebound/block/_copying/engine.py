"""A copy of one disk to another: pieces in order, many requests in flight, zeroes left out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..._core.task_group import TaskGroup
from .errors import FUTILE, CopyError, first_failure, never_stable
from .plan import Plan
from .writer import Writer

if TYPE_CHECKING:
    from .._disk import Disk
    from .plan import Changed, Piece

WINDOW = 8  # pieces in flight; with 16, caches hold less of them, at both ends
PIECE = 1 << 20  # bytes; with WINDOW it bounds the memory that a copy takes
_FINEST = 4096  # bytes; the precision of the offset that a read error names


class Copy:
    """A copy of the range from `start` to the end of `source`, to the same offsets of `target`.

    With `fresh` the target reads as zeroes, so zeroes are left out. With `changed`, only ranges
    for which it says so are copied. `target` must be as large as `source`, at least.

    Called from: home thread.
    """

    def __init__(
        self,
        source: Disk,
        target: Disk,
        *,
        start: int = 0,
        fresh: bool = False,
        changed: Changed | None = None,
    ) -> None:
        self.source: Disk = source
        self.target: Disk = target
        self.read: int = 0  # bytes read from the source
        # Everything before this offset is on stable storage, or was there from the start.
        self.stable: int = start
        self._piece = piece_size(source, target)
        self._writer = Writer(target, fresh=fresh)
        self._changed = changed
        self._begin_leg()

    def _begin_leg(self) -> None:
        """Plan to copy what is not stable: all of it, or what the target may have lost."""
        source, target = self.source, self.target
        self._interruptions = target.interruptions  # when nothing of this leg was written yet
        align = max(source.minimum_block, target.minimum_block)
        where = range(self.stable, source.size)
        self._plan = Plan(source, where, piece=self._piece, align=align, changed=self._changed)

    @property
    def done_until(self) -> int:
        """The offset before which everything has been copied."""
        return self._plan.done_until

    @property
    def written(self) -> int:
        """Bytes of data written."""
        return self._writer.written

    @property
    def zeroes(self) -> int:
        """Bytes known to be zeroes, or found to be."""
        return self._writer.zeroes

    async def run(self) -> None:
        """Copy, then flush the target. Raises CopyError, for the lowest offset that failed.

        What an interruption of the target may have lost is copied again.
        """
        futile = 0  # legs in a row after which no more was stable than before
        while True:
            stable = self.stable
            await self._copy_leg()
            if await self.flush() == self.source.size:
                return
            futile = futile + 1 if self.stable == stable else 0
            if futile == FUTILE:
                raise never_stable(stable)
            self._begin_leg()

    async def _copy_leg(self) -> None:
        workers = max(1, min(WINDOW, -(-self.source.size // self._piece)))
        try:
            async with TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None

    async def flush(self) -> int:
        """Put what was copied on stable storage; return up to where that was. Raises CopyError."""
        done, interruptions = self._plan.done_until, self._interruptions
        await self._writer.flush()
        if self.target.interruptions != interruptions:
            return self.stable
        self.stable = max(self.stable, done)
        return done

    async def _work(self) -> None:
        buffer = bytearray(self._piece)
        while (piece := await self._plan.take()) is not None:
            if self.target.interruptions != self._interruptions:
                return  # the rest of this leg is copied again in any case
            if piece.zero:
                await self._writer.zero(piece.offset, piece.length)
            else:
                await self._copy(piece, buffer)
            self._plan.finish(piece)
            await asyncio.sleep(0)  # disks that never wait leave the loop no other turn

    async def _copy(self, piece: Piece, buffer: bytearray) -> None:
        await read(self.source, piece.offset, memoryview(buffer)[: piece.length], target=False)
        self.read += piece.length
        await self._writer.store(piece.offset, buffer, piece.length)


def piece_size(*disks: Disk) -> int:
    """Return the size of requests that all of the disks take: whole blocks of each of them."""
    align = max(disk.minimum_block for disk in disks)
    limits = [disk.maximum_transfer for disk in disks if disk.maximum_transfer]
    return max(align, min([PIECE, *limits]) // align * align)


async def read(disk: Disk, offset: int, buffer: memoryview, *, target: bool) -> None:
    """Fill the buffer. Raises CopyError with the offset of the block that cannot be read."""
    try:
        if not disk.try_read_into(offset, buffer):
            await disk.read_into(offset, buffer)
    except OSError as error:
        where, why = await _find_unreadable(disk, offset, buffer, error)
        raise CopyError("read", where, why, target=target) from error


async def _find_unreadable(
    disk: Disk, offset: int, buffer: memoryview, error: OSError
) -> tuple[int, OSError]:
    """Return the first block that cannot be read, and its error, after a request that failed."""
    step = max(_FINEST, disk.minimum_block)
    for start in range(0, len(buffer), step):
        try:
            await disk.read_into(offset + start, buffer[start : start + step])
        except OSError as found:
            return offset + start, found
    return offset, error
