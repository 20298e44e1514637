"""Commits to bases of other kinds than a file: with large blocks, or on a server that restarts."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block import DiskError, MemoryDisk, OverlayDisk

if TYPE_CHECKING:
    from homebound.block import Disk

SIZE = 1 << 20
BLOCK = 64 << 10
Buffer = bytes | bytearray | memoryview


class LargeBlocks(MemoryDisk):
    """Takes whole blocks only, and one in a request, as a server may."""

    minimum_block = maximum_transfer = BLOCK

    def _need(self, offset: int, length: int, most: int) -> None:
        if (offset | length) % BLOCK or length > most:
            raise DiskError(errno.EINVAL, f"{length} bytes at {offset}")

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        self._need(offset, len(buffer), BLOCK)
        await super().read_into(offset, buffer)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self._need(offset, len(data), BLOCK)
        await super().write(offset, data, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self._need(offset, length, SIZE)
        await super().write_zeroes(offset, length, fua=fua, no_hole=no_hole)


class Restarted(MemoryDisk):
    """Loses what was not flushed, so many times, as the NBDDisk of a server that is killed."""

    losses = 2

    @property
    def interruptions(self) -> int:
        return 2 - self.losses

    async def flush(self) -> None:
        if self.losses:
            self.losses -= 1
            await self.write_zeroes(0, self.size)


async def contents(disk: Disk) -> bytes:
    return b"".join([await disk.read(at, BLOCK) for at in range(0, disk.size, BLOCK)])


@pytest.mark.parametrize("size", [SIZE, 3 * BLOCK + 5000, SIZE + 5000])
def test_a_base_of_large_blocks_gets_whole_ones(size: int):
    async def main() -> None:
        with LargeBlocks(SIZE) as base:
            for at in range(0, SIZE, BLOCK):
                await base.write(at, bytes([1 + at // BLOCK]) * BLOCK)
            expected = bytearray(await contents(base))
            with OverlayDisk(base, size=size) as disk:
                for offset, length in ((100, 5000), (BLOCK - 10, 20), (3 * BLOCK, 4999)):
                    await disk.write(offset, b"x" * length)
                    expected[offset : offset + length] = b"x" * length
                for offset, length in ((8192, 4096), (BLOCK + 4096, 2 * BLOCK - 4096)):
                    await disk.write_zeroes(offset, length)
                    expected[offset : offset + length] = bytes(length)
                await disk.commit()
                assert await contents(base) == expected
                assert disk.info.data == disk.info.zero == 0

    homebound.run(main())


def test_what_a_base_has_lost_is_written_again():
    async def main() -> None:
        with Restarted(SIZE) as base, OverlayDisk(base) as disk:
            await disk.write(5000, b"kept")
            await disk.commit()
            assert base.interruptions == 2
            assert await base.read(5000, 4) == b"kept"

    homebound.run(main())
