"""A disk with its size rounded up: what is past its end reads as zeroes.

Clients that work in blocks ask for whole ones, also of a disk that ends within a block. The padding
cannot keep anything: zeroes may be written there, for they are what it reads as, so a client that
copies whole blocks back succeeds; a write of anything else fails with ENOSPC, and changes nothing.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Generic, TypeVar

from ...block._disk import BlockingDisk, Disk
from ...block._errors import DiskError

if TYPE_CHECKING:
    from ...block._disk import Buffer, Operations

T = TypeVar("T")


def round_up(disk: Disk, multiple: int) -> Disk:
    """Present a disk with its size rounded up to a multiple; itself if it is one already."""
    if disk.size % multiple == 0:
        return disk
    size = -(-disk.size // multiple) * multiple
    if isinstance(disk, BlockingDisk):
        return RoundedBlockingDisk(disk, size)
    return RoundedDisk(disk, size)


class Padded(Generic[T]):
    """The operations of a disk of `inside` bytes, for ranges that may go beyond its end."""

    def __init__(self, inner: Operations[T], inside: int) -> None:
        self._inner = inner
        self._inside = inside

    def read_into(self, offset: int, buffer: memoryview, /) -> T:
        """Fill `buffer`, past the end with zeroes."""
        offset, inside = self._clip(offset, len(buffer))
        clear(buffer[inside:])
        return self._inner.read_into(offset, buffer[:inside])

    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> T:
        """Write what is inside; what is not has to be zeroes."""
        offset, inside = self._clip(offset, len(data))
        check_padding(data, inside)
        return self._inner.write(offset, memoryview(data)[:inside], fua=fua)

    def flush(self) -> T:
        """Put on stable storage what was written."""
        return self._inner.flush()

    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> T:
        """Drop what is inside."""
        return self._inner.trim(*self._clip(offset, length), fua=fua)

    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> T:
        """Zero what is inside; the rest is."""
        return self._inner.write_zeroes(*self._clip(offset, length), fua=fua, no_hole=no_hole)

    def _clip(self, offset: int, length: int) -> tuple[int, int]:
        offset = min(offset, self._inside)
        return offset, min(length, self._inside - offset)


def clear(buffer: memoryview) -> None:
    """Fill it with zeroes."""
    if buffer:
        buffer[:] = bytes(len(buffer))


def check_padding(data: Buffer, inside: int) -> None:
    """Refuse a write whose bytes past the end are not all zeroes."""
    padding = bytes(memoryview(data)[inside:])
    if padding.count(0) != len(padding):
        raise DiskError(errno.ENOSPC, "only zeroes may be written past the end of the disk")


class _Attempts(Disk):
    """The attempts of a rounded disk, and what it takes over from the one inside."""

    inner: Disk

    def _take_over(self, disk: Disk, size: int) -> None:
        self.inner = disk
        self.size = size
        self.read_only = disk.read_only
        self.shared_cache = disk.shared_cache
        self.volatile = disk.volatile
        self.preferred_block = disk.preferred_block

    def __repr__(self) -> str:
        return f"<{self.inner!r} rounded up to {self.size} bytes>"

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read at once if what is inside can be; zeroes past its end.

        Called from: any thread.
        """
        inside = max(0, self.inner.size - offset)
        if inside < len(buffer):
            clear(buffer[inside:])
            buffer = buffer[:inside]
        return not buffer or self.inner.try_read_into(offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write at once if what is inside can be; past its end it has to be zeroes.

        Called from: any thread.
        """
        inside = max(0, self.inner.size - offset)
        if inside < len(data):
            check_padding(data, inside)
            data = memoryview(data)[:inside]
        return not data or self.inner.try_write(offset, data)

    def close(self) -> None:
        """Close the disk inside.

        Called from: any thread.
        """
        self.inner.close()


class RoundedBlockingDisk(_Attempts, BlockingDisk):
    """A disk of blocking operations with its size rounded up."""

    def __init__(self, disk: BlockingDisk, size: int) -> None:
        self._take_over(disk, size)
        self.blocking: Operations[None] = Padded(disk.blocking, disk.size)


class RoundedDisk(_Attempts):
    """A disk that is awaited with its size rounded up."""

    def __init__(self, disk: Disk, size: int) -> None:
        self._take_over(disk, size)
        self._padded = Padded(disk, disk.size)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, past the end with zeroes.

        Called from: task.
        """
        self.check_range(offset, len(buffer))
        await self._padded.read_into(offset, buffer)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write; past the end it has to be zeroes.

        Called from: task.
        """
        self.check_range(offset, len(data))
        await self._padded.write(offset, data, fua=fua)

    async def flush(self) -> None:
        """Put on stable storage what was written.

        Called from: task.
        """
        await self._padded.flush()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Drop what is inside.

        Called from: task.
        """
        self.check_range(offset, length)
        await self._padded.trim(offset, length, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Zero what is inside; the rest is.

        Called from: task.
        """
        self.check_range(offset, length)
        await self._padded.write_zeroes(offset, length, fua=fua, no_hole=no_hole)
