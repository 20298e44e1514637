"""A disk in memory, which takes as much of it as has been written to."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

from ._disk import Buffer, Disk
from ._errors import DiskClosed, DiskError, DiskReadOnly, out_of_range
from ._pace import PIECE, in_pieces
from ._pages import address_of, extents_of, in_steps

if TYPE_CHECKING:
    from ._extent import Extent

_NORESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000)
_PAGE = mmap.PAGESIZE
_LARGEST_DROP = 32 << 20  # bytes given back at once where there is nothing to give back
_ZEROES = bytes(PIECE)


class MemoryDisk(Disk):
    r"""A disk of `size` bytes, at first all zeroes. Its contents end with it.

    Only pages that were written to take memory, so a disk may be far larger than the machine's.
    Every operation is done in the thread that asks for it. The attempts do it at once; what is
    awaited takes at most a millisecond or two in each iteration of the loop, all operations
    together. Two that overlap leave a mixture of both, as on any disk.

    Raises DiskError if the size is not positive or the address space does not have room for it.

    >>> import homebound
    >>> from homebound.block import MemoryDisk
    >>> async def main():
    ...     with MemoryDisk(1 << 40) as disk:
    ...         await disk.write(1 << 39, b"hello")
    ...         return await disk.read((1 << 39) - 1, 7)
    >>> homebound.run(main())
    bytearray(b'\x00hello\x00')

    Called from: any thread.
    """

    shared_cache = True  # there is no cache at all
    volatile = True
    can_fast_zero = True
    read_only: bool = False

    def __init__(self, size: int, *, read_only: bool = False) -> None:
        if not isinstance(size, int):
            message = f"MemoryDisk: the size is {size!r}; it must be a number of bytes, as 1 << 30"
            raise TypeError(message)
        self.size: int = size
        self.read_only = read_only
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        try:
            pages = mmap.mmap(-1, size, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            text = f"cannot make a disk of {size} bytes in memory: {error}"
            raise DiskError(errno.ENOMEM if size > 0 else errno.EINVAL, text) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # A huge page would take 2 MiB for the first byte written into it.
            try:
                pages.madvise(mmap.MADV_NOHUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages
        # None once closed. The memory itself goes with the last reference to it: another thread may
        # be copying from there. No view of it is kept, for threads to share: before 3.14 slicing
        # one in two threads at once, without a GIL, may release it under both.
        self._map: mmap.mmap | None = pages
        self._address = address_of(pages)

    def __repr__(self) -> str:
        how = " read-only" if self.read_only else ""
        return f"<MemoryDisk of {self.size} bytes{how}>"

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read; it never has to wait.

        Called from: any thread.
        """
        pages = self._map
        if pages is None:
            raise DiskClosed(self)
        try:
            buffer[:] = memoryview(pages)[offset : offset + len(buffer)]
        except ValueError:  # the sizes differ: what is past the end is not in a slice
            raise out_of_range(self, offset, len(buffer)) from None
        return True

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write; it never has to wait.

        Called from: any thread.
        """
        pages = self._map
        if pages is None:
            raise DiskClosed(self)
        try:
            pages[offset : offset + len(data)] = data
        except IndexError:
            raise out_of_range(self, offset, len(data)) from None
        return True

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on.

        Called from: task.
        """
        self.check_range(offset, len(buffer))
        self._check_open()

        def read(start: int, stop: int) -> None:
            self.try_read_into(start, buffer[start - offset : stop - offset])

        await in_pieces(read, offset, offset + len(buffer))

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`; there is no stable storage, so `fua` changes nothing.

        Called from: task.
        """
        del fua
        self._check_change(offset, len(data))
        view = memoryview(data)

        def write(start: int, stop: int) -> None:
            self.try_write(start, view[start - offset : stop - offset])

        await in_pieces(write, offset, offset + len(data))

    async def flush(self) -> None:
        """Do nothing: there is no stable storage.

        Called from: task.
        """
        self._check_open()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give back the memory of all pages that lie wholly in the range.

        Called from: task.
        """
        del fua
        self._check_change(offset, length)
        await self._drop_pages(offset, length)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes; with `no_hole` its memory is taken now.

        Called from: task.
        """
        del fua
        self._check_change(offset, length)
        end = offset + length
        first = last = end
        if not no_hole:
            first, last = await self._drop_pages(offset, length)
        await self._clear(offset, first)
        await self._clear(last, end)

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Give back the memory of the range; with `no_hole` that is no option, hence ENOTSUP.

        Called from: task.
        """
        self._check_change(offset, length)
        if no_hole:
            text = f"zeroes that take memory are not written quickly to {self!r}"
            raise DiskError(errno.ENOTSUP, text)
        await self.write_zeroes(offset, length, fua=fua)

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Pages that were written to are data, the others holes.

        Called from: task.
        """
        self.check_range(offset, length)
        self._look(offset, 0)  # is it open?
        return await in_steps(self._look, offset, offset + length)

    def _look(self, offset: int, length: int) -> list[Extent]:
        pages = self._map  # held meanwhile: its pages are nothing else's
        if pages is None:
            raise DiskClosed(self)
        return extents_of(self._address, offset, length, lambda start, stop: pages[start:stop])

    def close(self) -> None:
        """Let go of the memory, and of what was written.

        Called from: any thread.
        """
        self._map = None

    async def _drop_pages(self, offset: int, length: int) -> tuple[int, int]:
        """Empty the whole pages of the range. Where they begin and end; equal if there are none."""
        first = -(-offset // _PAGE) * _PAGE
        last = (offset + length) // _PAGE * _PAGE
        if first >= last:
            return offset + length, offset + length

        def drop(start: int, stop: int) -> None:
            self._check_open().madvise(mmap.MADV_DONTNEED, start, stop - start)

        await in_pieces(drop, first, last, piece=_LARGEST_DROP)
        return first, last

    async def _clear(self, start: int, end: int) -> None:
        def clear(start: int, stop: int) -> None:
            self.try_write(start, _ZEROES[: stop - start])

        await in_pieces(clear, start, end)

    def _check_open(self) -> mmap.mmap:
        pages = self._map
        if pages is None:
            raise DiskClosed(self)
        return pages

    def _check_change(self, offset: int, length: int) -> None:
        self._check_open()
        self.check_range(offset, length)
        if self.read_only:
            raise DiskReadOnly(self)
