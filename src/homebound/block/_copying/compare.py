"""Comparing two disks, to verify a copy: what both say is zeroes is not read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..._core.task_group import TaskGroup
from .engine import WINDOW, piece_size, read
from .errors import Differs, first_failure
from .plan import Plan
from .zeroes import first_nonzero

if TYPE_CHECKING:
    from .._disk import Disk
    from .plan import Changed, Piece


class Comparison:
    """A comparison of `source` with as many bytes of `target`; with `changed`, only of those.

    Called from: home thread.
    """

    def __init__(self, source: Disk, target: Disk, *, changed: Changed | None = None) -> None:
        self._source = source
        self._target = target
        self._piece = piece_size(source, target)
        align = max(source.minimum_block, target.minimum_block)
        where = range(source.size)
        self._plan = Plan(source, where, piece=self._piece, align=align, changed=changed)

    @property
    def done_until(self) -> int:
        """The offset before which everything has been compared."""
        return self._plan.done_until

    async def run(self) -> None:
        """Compare. Raises Differs for the first byte that differs, CopyError if a disk fails."""
        pieces = -(-self._source.size // self._piece)
        workers = max(1, min(WINDOW // 2, pieces))  # each has two buffers
        try:
            async with TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None

    async def _work(self) -> None:
        ours, theirs = bytearray(self._piece), bytearray(self._piece)
        while (piece := await self._plan.take()) is not None:
            if piece.zero:
                await self._check_zeroes(piece, theirs)
            else:
                await self._check_data(piece, ours, theirs)
            self._plan.finish(piece)
            await asyncio.sleep(0)  # disks that never wait leave the loop no other turn

    async def _check_data(self, piece: Piece, ours: bytearray, theirs: bytearray) -> None:
        size = piece.length
        await read(self._source, piece.offset, memoryview(ours)[:size], target=False)
        await self._read_target(piece.offset, theirs, size)
        # Whole bytearrays compare fastest; what is beyond `size` is left from an earlier piece.
        if (ours == theirs) if size == self._piece else (ours[:size] == theirs[:size]):
            return
        index = next(at for at in range(size) if ours[at] != theirs[at])
        raise Differs(piece.offset + index)

    async def _check_zeroes(self, piece: Piece, buffer: bytearray) -> None:
        """Read what the target has where the source is zeroes, but for what it says is zeroes."""
        align = self._target.minimum_block
        end = piece.offset + piece.length
        where = range(piece.offset, min(self._target.size, -(-end // align) * align))
        plan = Plan(self._target, where, piece=self._piece, align=align)
        while (part := await plan.take()) is not None:
            if not part.zero:
                await read(
                    self._target, part.offset, memoryview(buffer)[: part.length], target=True
                )
                index = first_nonzero(buffer, min(part.length, end - part.offset))
                if index is not None:
                    raise Differs(part.offset + index)
            plan.finish(part)

    async def _read_target(self, offset: int, buffer: bytearray, length: int) -> None:
        """Read; whole blocks, where the source ends within a block of the target."""
        block = self._target.minimum_block
        whole = min(self._target.size - offset, -(-length // block) * block)
        if whole <= len(buffer):
            await read(self._target, offset, memoryview(buffer)[:whole], target=True)
        else:
            data = await self._target.read(offset, whole)
            buffer[:length] = data[:length]
