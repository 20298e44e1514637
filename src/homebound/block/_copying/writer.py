"""Writing to the target of a copy: zeroes as zeroes, and a last block that is not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CopyError
from .zeroes import BLOCK, runs_of

if TYPE_CHECKING:
    from .._disk import Disk


class Writer:
    """Writes to `target`; with `fresh` that reads as zeroes, which need not be written then.

    Ranges begin at a multiple of the target's smallest block, and end at one or where the source
    ends; so no two of them share a block.

    Called from: home thread.
    """

    def __init__(self, target: Disk, *, fresh: bool) -> None:
        self.written: int = 0  # bytes of data
        self.zeroes: int = 0  # bytes of zeroes, whether they had to be written or not
        self._target = target
        self._fresh = fresh
        self._block = max(BLOCK, target.minimum_block)

    async def store(self, offset: int, data: bytearray, length: int) -> None:
        """Write the first `length` bytes of `data`, of which zeroes become holes.

        Raises CopyError.
        """
        view = memoryview(data)
        for start, stop, zero in runs_of(data, length, self._block):
            if zero:
                await self.zero(offset + start, stop - start)
            else:
                await self._write(offset + start, view[start:stop])

    async def zero(self, offset: int, length: int) -> None:
        """Have the range read as zeroes, and take no storage if possible. Raises CopyError."""
        if not self._fresh:
            try:
                await self._zero(offset, length)
            except OSError as error:
                raise CopyError("zero", offset, error, target=True) from error
        self.zeroes += length

    async def flush(self) -> None:
        """Put what was written on stable storage. Raises CopyError."""
        try:
            await self._target.flush()
        except OSError as error:
            raise CopyError("flush", 0, error, target=True) from error

    async def _write(self, offset: int, data: memoryview) -> None:
        try:
            if len(data) % self._target.minimum_block:
                await self._write_last(offset, data)
            elif not self._target.try_write(offset, data):
                await self._target.write(offset, data)
        except OSError as error:
            raise CopyError("write", offset, error, target=True) from error
        self.written += len(data)

    async def _zero(self, offset: int, length: int) -> None:
        rest = length % self._target.minimum_block
        if length > rest:
            await self._target.write_zeroes(offset, length - rest)
        if rest:
            await self._write_last(offset + length - rest, memoryview(bytes(rest)))

    async def _write_last(self, offset: int, data: memoryview) -> None:
        """Write data that ends within a block of the target; the rest of the block is kept."""
        block = self._target.minimum_block
        length = min(self._target.size - offset, -(-len(data) // block) * block)
        whole = await self._target.read(offset, length)
        whole[: len(data)] = data
        await self._target.write(offset, whole)
