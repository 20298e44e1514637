"""A disk with its size rounded up; the padding past its end reads as zeroes.

Some clients transfer whole blocks only, even where the disk ends within a block. The padding stores
nothing. Writing zeroes to it succeeds, as they are what it reads as, so a client can copy whole
blocks back; a write of anything else fails with ENOSPC and changes nothing.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Generic, TypeVar

from ...block._blocking_disk import BlockingDisk
from ...block._disk import Disk
from ...block._errors import DiskError
from ...block._extent import Extent, merged

if TYPE_CHECKING:
    from ...block._disk import Buffer, Operations

T = TypeVar("T")


def round_up(disk: Disk, multiple: int) -> Disk:
    """Return a disk whose size is rounded up to a multiple: `disk` itself if it is one already."""
    if disk.size % multiple == 0:
        return disk
    size = -(-disk.size // multiple) * multiple
    if isinstance(disk, BlockingDisk):
        return RoundedBlockingDisk(disk, size)
    return RoundedDisk(disk, size)


class Padded(Generic[T]):
    """The operations of a disk of `inside` bytes, for ranges that may extend past its end."""

    def __init__(self, inner: Operations[T], inside: int) -> None:
        self._inner = inner
        self._inside = inside

    def read_into(self, offset: int, buffer: memoryview, /) -> T:
        """Fill `buffer`; the part past the end is zeroes."""
        offset, inside = self._clip(offset, len(buffer))
        clear(buffer[inside:])
        return self._inner.read_into(offset, buffer[:inside])

    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> T:
        """Write the part inside; the part past the end must be zeroes."""
        offset, inside = self._clip(offset, len(data))
        check_padding(data, inside)
        return self._inner.write(offset, memoryview(data)[:inside], fua=fua)

    def flush(self) -> T:
        """Flush the disk inside."""
        return self._inner.flush()

    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> T:
        """Trim the part inside."""
        return self._inner.trim(*self._clip(offset, length), fua=fua)

    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> T:
        """Zero the part inside; the padding is zero already."""
        return self._inner.write_zeroes(*self._clip(offset, length), fua=fua, no_hole=no_hole)

    def _clip(self, offset: int, length: int) -> tuple[int, int]:
        return clip(offset, length, self._inside)


def clip(offset: int, length: int, inside: int) -> tuple[int, int]:
    """Cut a range off at the end of a disk of `inside` bytes."""
    offset = min(offset, inside)
    return offset, min(length, inside - offset)


def clear(buffer: memoryview) -> None:
    """Fill `buffer` with zeroes."""
    if buffer:
        buffer[:] = bytes(len(buffer))


def check_padding(data: Buffer, inside: int) -> None:
    """Refuse a write whose bytes past the end are not all zeroes."""
    padding = bytes(memoryview(data)[inside:])
    if padding.count(0) != len(padding):
        raise DiskError(errno.ENOSPC, "only zeroes may be written past the end of the disk")


class _Rounded(Disk):
    """The part of a rounded disk that is the same for blocking and awaited operations."""

    inner: Disk

    def _take_over(self, disk: Disk, size: int) -> None:
        self.inner = disk
        self.size = size
        self.read_only = disk.read_only
        self.shared_cache = disk.shared_cache
        self.volatile = disk.volatile
        self.preferred_block = disk.preferred_block
        self.minimum_block = disk.minimum_block
        self.maximum_transfer = disk.maximum_transfer
        self.can_fast_zero = disk.can_fast_zero
        self.can_flush, self.can_fua = disk.can_flush, disk.can_fua
        self.can_trim, self.rotational = disk.can_trim, disk.rotational

    def __repr__(self) -> str:
        return f"<{self.inner!r} rounded up to {self.size} bytes>"

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read at once if the disk inside can; the part past its end is zeroes.

        Called from: any thread.
        """
        inside = max(0, self.inner.size - offset)
        if inside < len(buffer):
            clear(buffer[inside:])
            buffer = buffer[:inside]
        return not buffer or self.inner.try_read_into(offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write at once if the disk inside can; the part past its end must be zeroes.

        Called from: any thread.
        """
        inside = max(0, self.inner.size - offset)
        if inside < len(data):
            check_padding(data, inside)
            data = memoryview(data)[:inside]
        return not data or self.inner.try_write(offset, data)

    def try_flush(self) -> bool:
        """Do as the disk inside does.

        Called from: any thread.
        """
        return self.inner.try_flush()

    def try_cache(self) -> bool:
        """Do as the disk inside does.

        Called from: any thread.
        """
        return self.inner.try_cache()

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Zero the part inside quickly, or raise DiskError with ENOTSUP.

        Called from: task.
        """
        self.check_range(offset, length)
        offset, length = clip(offset, length, self.inner.size)
        await self.inner.fast_zeroes(offset, length, fua=fua, no_hole=no_hole)

    async def cache(self, offset: int, length: int) -> None:
        """Pass the hint on for the part inside.

        Called from: task.
        """
        self.check_range(offset, length)
        await self.inner.cache(*clip(offset, length, self.inner.size))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return the extents of the disk inside; the padding is a hole that reads as zeroes.

        Called from: task.
        """
        self.check_range(offset, length)
        start, inside = clip(offset, length, self.inner.size)
        extents = await self.inner.block_status(start, inside) if inside else []
        return merged([*extents, Extent(length - inside, hole=True, zero=True)])

    def close(self) -> None:
        """Close the disk inside.

        Called from: any thread.
        """
        self.inner.close()


class RoundedBlockingDisk(_Rounded, BlockingDisk):
    """A rounded-up disk with blocking operations."""

    def __init__(self, disk: BlockingDisk, size: int) -> None:
        self._take_over(disk, size)
        self.blocking: Operations[None] = Padded(disk.blocking, disk.size)
        self._blocking_disk = disk

    @property
    def slices(self) -> int:
        """The number of workers that share the requests: as many as of the disk inside.

        Called from: any thread.
        """
        return self._blocking_disk.slices


class RoundedDisk(_Rounded):
    """A rounded-up disk with awaited operations."""

    def __init__(self, disk: Disk, size: int) -> None:
        self._take_over(disk, size)
        self._padded = Padded(disk, disk.size)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; the part past the end is zeroes.

        Called from: task.
        """
        self.check_range(offset, len(buffer))
        await self._padded.read_into(offset, buffer)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write the part inside; the part past the end must be zeroes.

        Called from: task.
        """
        self.check_range(offset, len(data))
        await self._padded.write(offset, data, fua=fua)

    async def flush(self) -> None:
        """Flush the disk inside.

        Called from: task.
        """
        await self._padded.flush()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Trim the part inside.

        Called from: task.
        """
        self.check_range(offset, length)
        await self._padded.trim(offset, length, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Zero the part inside; the padding is zero already.

        Called from: task.
        """
        self.check_range(offset, length)
        await self._padded.write_zeroes(offset, length, fua=fua, no_hole=no_hole)
