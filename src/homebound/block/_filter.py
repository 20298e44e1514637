"""The base of disks on top of another disk: each operation goes through one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._disk import Disk, need_disk
from ._errors import DiskClosed, DiskReadOnly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._extent import Extent
    from ._operations import Buffer

T = TypeVar("T")


class Filter(Disk):
    """A disk on top of `disk`, which stays its opener's to close.

    A subclass overrides `_carry_out`, and the attempts where it has more to say than `disk` has.
    """

    def __init__(self, disk: Disk, *, start: int = 0, size: int | None = None) -> None:
        need_disk(type(self).__name__, disk)
        self.disk: Disk = disk
        self.size: int = disk.size if size is None else size
        self.read_only: bool = disk.read_only
        self.shared_cache: bool = disk.shared_cache
        self.volatile: bool = disk.volatile
        self.preferred_block: int = disk.preferred_block
        self.minimum_block: int = disk.minimum_block
        self.maximum_transfer: int | None = disk.maximum_transfer
        self.can_fast_zero: bool = disk.can_fast_zero
        self.can_flush: bool = disk.can_flush
        self.can_fua: bool = disk.can_fua
        self.can_trim: bool = disk.can_trim
        self.rotational: bool = disk.rotational
        self._start = start  # where it begins on `disk`
        self._closed = False  # written once, by `close`

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.disk!r}>"

    @property
    def interruptions(self) -> int:
        """The interruptions of the disk below.

        Called from: any thread.
        """
        return self.disk.interruptions

    async def _carry_out(
        self, command: str, offset: int, length: int, go_on: Callable[[int], Awaitable[T]]
    ) -> T:
        """Carry out one request; `await go_on(n)` has `disk` do the first `n` bytes of it."""
        del command, offset
        return await go_on(length)

    # Attempts.

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Do as the disk below does.

        Called from: any thread.
        """
        self._check_open()
        return self.disk.try_read_into(self._start + offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Do as the disk below does.

        Called from: any thread.
        """
        self._check_open()
        return self.disk.try_write(self._start + offset, data)

    def try_flush(self) -> bool:
        """Return whether the disk below has nothing to flush.

        Called from: any thread.
        """
        return not self._closed and self.disk.try_flush()

    # Operations.

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises OSError when the disk fails.

        Called from: task.
        """
        self._check(offset, len(buffer))
        disk, at = self.disk, self._start + offset
        await self._carry_out(
            "read", offset, len(buffer), lambda length: disk.read_into(at, buffer[:length])
        )

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`; with `fua` it is on stable storage on return. Raises OSError.

        Called from: task.
        """
        self._check(offset, len(data), changes=True)
        disk, at, view = self.disk, self._start + offset, memoryview(data)
        await self._carry_out(
            "write", offset, len(data), lambda length: disk.write(at, view[:length], fua=fua)
        )

    async def flush(self) -> None:
        """Put on stable storage what was written before. Raises OSError when that fails.

        Called from: task.
        """
        self._check_open()
        disk = self.disk
        await self._carry_out("flush", 0, 0, lambda _: disk.flush())

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give a hint that the range may be dropped. Raises OSError when the disk fails.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        disk, at = self.disk, self._start + offset
        await self._carry_out("trim", offset, length, lambda length: disk.trim(at, length, fua=fua))

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes. Raises OSError when the disk fails.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        disk, at = self.disk, self._start + offset
        await self._carry_out(
            "write_zeroes",
            offset,
            length,
            lambda length: disk.write_zeroes(at, length, fua=fua, no_hole=no_hole),
        )

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes quickly, or raise OSError with ENOTSUP.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        disk, at = self.disk, self._start + offset
        await self._carry_out(
            "fast_zeroes",
            offset,
            length,
            lambda length: disk.fast_zeroes(at, length, fua=fua, no_hole=no_hole),
        )

    async def cache(self, offset: int, length: int) -> None:
        """Give a hint that the range will be read soon.

        Called from: task.
        """
        self._check(offset, length)
        disk, at = self.disk, self._start + offset
        await self._carry_out("cache", offset, length, lambda length: disk.cache(at, length))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return how the disk below stores the range.

        Called from: task.
        """
        self._check(offset, length)
        disk, at = self.disk, self._start + offset

        def go_on(length: int) -> Awaitable[list[Extent]]:
            return disk.block_status(at, length)

        return await self._carry_out("block_status", offset, length, go_on)

    def close(self) -> None:
        """Refuse all later use. The disk below stays open. May be called again.

        Called from: any thread.
        """
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise DiskClosed(self)

    def _check(self, offset: int, length: int, *, changes: bool = False) -> None:
        self._check_open()
        self.check_range(offset, length)
        if changes and self.read_only:
            raise DiskReadOnly(self)
