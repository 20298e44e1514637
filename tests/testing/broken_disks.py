"""Disks for the tests of check_disk: a simple one that passes, and many with a bug."""
# ruff: noqa: ARG002  (a disk with a bug does not heed all of its arguments)

from __future__ import annotations

import asyncio
import errno
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from homebound.block import (
    BlockingDisk,
    Disk,
    Extent,
    MemoryDisk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 100_001
Buffer = bytes | bytearray | memoryview


class Simple(Disk):
    """A user's disk, with no more than it must have."""

    read_only = False

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.data = bytearray(size)
        self.closed = False

    def check(self, offset: int, length: int) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "closed")
        self.check_range(offset, length)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        self.check(offset, len(buffer))
        await asyncio.sleep(0)
        self.check(offset, len(buffer))
        buffer[:] = self.data[offset : offset + len(buffer)]

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        del fua
        self.check(offset, len(data))
        await asyncio.sleep(0)
        self.check(offset, len(data))
        self.data[offset : offset + len(data)] = data

    async def flush(self) -> None:
        self.check(0, 0)

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        del fua
        self.check(offset, length)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        del no_hole
        await self.write(offset, bytes(max(length, 0)), fua=fua)

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check(offset, length)
        return await super().block_status(offset, length)

    def close(self) -> None:
        self.closed = True


class Calls(BlockingDisk):
    """A user's disk whose calls block."""

    read_only = False
    minimum_block = 512
    maximum_transfer = 64 << 10
    size = 128 << 10

    def __init__(self) -> None:
        self.blocking = self.memory = _Calls(MemoryDisk(self.size))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        if self.memory.disk._map is None:
            raise OSError(errno.EBADF, "closed")
        return await super().block_status(offset, length)

    def close(self) -> None:
        self.memory.disk.close()


class _Calls:
    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk

    def check(self, offset: int, length: int) -> None:
        assert not (offset | length) % 512
        self.disk.check_range(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.check(offset, len(buffer))
        assert self.disk.try_read_into(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        del fua
        self.check(offset, len(data))
        assert self.disk.try_write(offset, data)

    def flush(self) -> None:
        if self.disk._map is None:
            raise OSError(errno.EBADF, "closed")

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        self.write_zeroes(offset, length, fua=fua)

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        del no_hole
        self.write(offset, bytes(max(length, 0)), fua=fua)


# Disks with a bug.


class DropsTheOddEnd(Simple):
    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        await super().write(offset, memoryview(data)[: max(0, self.size // 512 * 512 - offset)])


class ReadsNoMoreThan64K(Simple):
    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await super().read_into(offset, buffer[:65536])


class SpillsOver(Simple):
    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await super().read_into(offset, buffer)
        whole = buffer.obj
        if isinstance(whole, bytearray) and len(whole) > len(buffer):
            whole[:] = bytes(len(whole))


class WritesBytesOnly(Simple):
    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        if not isinstance(data, bytes):
            raise OSError(errno.EINVAL, "bytes only")
        await super().write(offset, data, fua=fua)


class KeepsTheBuffer(Simple):
    """Writes what the caller's buffer has when it is read next."""

    late: tuple[int, Buffer] | None = None

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        await super().write(offset, data, fua=fua)
        self.late = offset, data

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        if self.late is not None:
            at, data = self.late
            self.data[at : at + len(data)] = data
        await super().read_into(offset, buffer)


class ZeroesWholePages(Simple):
    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self.check(offset, length)
        end = min(self.size, -(-(offset + length) // 512) * 512)
        self.data[offset:end] = bytes(end - offset)


class LeavesHolesThatWereNot(Simple):
    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        if not no_hole:
            await super().write_zeroes(offset, length, fua=fua)


class TrimsWholePages(Simple):
    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        await super().trim(offset, length, fua=fua)
        first, end = offset // 4096 * 4096, min(self.size, -(-(offset + length) // 4096) * 4096)
        self.data[first:end] = bytes(end - first)


class ZeroesQuicklyThenSaysNo(Simple):
    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        await self.write_zeroes(offset, length // 2)
        raise OSError(errno.ENOTSUP, "not quick")


class ZeroesQuicklyUnasked(Simple):
    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        await self.write_zeroes(offset, length, fua=fua)


class AttemptsElsewhere(Simple):
    def try_write(self, offset: int, data: Buffer) -> bool:
        if offset == 0 or self.closed:
            return False
        self.data[offset - 1 : offset - 1 + len(data)] = data
        return True


class SaysAllIsAHole(Simple):
    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check(offset, length)
        return [Extent(length, hole=True, zero=True)] if length else []


class ForgetsTheLastExtent(Simple):
    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check(offset, length)
        return [Extent(length // 512 * 512)] if length >= 512 else []


class TellsEmptyExtents(Simple):
    async def block_status(self, offset: int, length: int) -> list[Extent]:
        self.check(offset, length)
        return [Extent(length), Extent(0)]


class Grows(Simple):
    def check(self, offset: int, length: int) -> None:
        super().check(0, 0)


class RaisesWhatIsNoOSError(Simple):
    def check(self, offset: int, length: int) -> None:
        if self.closed:
            raise ValueError("closed")
        super().check(offset, length)


class WritesThoughReadOnly(Simple):
    read_only = True


class NoPowerOfTwo(Simple):
    preferred_block = 1000


class WritesOneMiBAtMost(Simple):
    def __init__(self) -> None:
        super().__init__(2 << 20)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        await super().write(offset, memoryview(data)[: 1 << 20], fua=fua)


class ReadsOneMiBAtMost(Simple):
    read_only = True

    def __init__(self) -> None:
        super().__init__(2 << 20)
        self.data[:] = b"x" * self.size

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await super().read_into(offset, buffer[: 1 << 20])


class ZeroesThoughReadOnly(ReadsOneMiBAtMost):
    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self.check(offset, length)


class TransfersLessThanItPrefers(Simple):
    maximum_transfer = 1000


class LandsLate(Simple):
    """A cancelled write goes on by itself, slowly, and another is quick meanwhile."""

    busy = 0

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.check(offset, len(data))
        await asyncio.shield(self.later(offset, bytes(data)))

    async def later(self, offset: int, data: bytes) -> None:
        self.busy += 1
        for _ in range(0 if self.busy > 1 else 30):
            await asyncio.sleep(0)
        await super().write(offset, data)
        self.busy -= 1


class ReadsOn(Simple):
    """A cancelled read goes on by itself."""

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        self.check(offset, len(buffer))
        await asyncio.shield(self.later(offset, buffer))

    async def later(self, offset: int, buffer: memoryview) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if not self.closed:
            await super().read_into(offset, buffer)


class MergesWithoutALock(Simple):
    """Whole blocks of 4096 bytes are read, changed and written back."""

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.check(offset, len(data))
        if not len(data):
            return
        first = offset // 4096 * 4096
        end = min(self.size, -(-(offset + len(data)) // 4096) * 4096)
        block = self.data[first:end]
        await asyncio.sleep(0)
        block[offset - first : offset - first + len(data)] = data
        await super().write(first, block)


class MergesInThreadsWithoutALock(Simple):
    def try_write(self, offset: int, data: Buffer) -> bool:
        if self.closed:
            return False
        first, end = offset // 4096 * 4096, -(-(offset + len(data)) // 4096) * 4096
        block = self.data[first:end]
        time.sleep(0.001)
        block[offset - first : offset - first + len(data)] = data
        self.data[first:end] = block
        return True


class IsNotDrained(Simple):
    def drained(self) -> Any:
        return nullcontext()


class HangsWhenClosed(Simple):
    """What is under way at a close never ends."""

    async def flush(self) -> None:
        while not self.closed:
            await asyncio.sleep(0)
        await asyncio.get_running_loop().create_future()


BUGS: dict[Callable[[], Disk], set[str]] = {
    DropsTheOddEnd: {"writes at every alignment"},
    ReadsNoMoreThan64K: {"does what a bytearray does"},
    SpillsOver: {"fills its buffer and no more"},
    WritesBytesOnly: {"takes every kind of bytes"},
    KeepsTheBuffer: {"takes every kind of bytes"},
    ZeroesWholePages: {"zeroes at every alignment"},
    LeavesHolesThatWereNot: {"zeroes at every alignment"},
    TrimsWholePages: {"trims no more than it is told"},
    ZeroesQuicklyThenSaysNo: {"zeroes quickly or not at all"},
    ZeroesQuicklyUnasked: {"zeroes quickly or not at all"},
    AttemptsElsewhere: {"attempts what it can"},
    SaysAllIsAHole: {"tells holes from data"},
    ForgetsTheLastExtent: {"tells holes from data"},
    TellsEmptyExtents: {"tells holes from data"},
    Grows: {"refuses what is outside"},
    RaisesWhatIsNoOSError: {"says that it is closed"},
    WritesThoughReadOnly: {"refuses changes if read only"},
    WritesOneMiBAtMost: {"takes large requests"},
    ReadsOneMiBAtMost: {"takes large requests"},
    ZeroesThoughReadOnly: {"refuses changes if read only"},
    NoPowerOfTwo: {"describes itself"},
    TransfersLessThanItPrefers: {"describes itself"},
    LandsLate: {"loses nothing when cancelled"},
    ReadsOn: {"loses nothing when cancelled"},
    MergesWithoutALock: {"is used by homes"},
    MergesInThreadsWithoutALock: {"is used by threads"},
    IsNotDrained: {"drains"},
}
