"""A raw image as a disk: a file or a block device, byte for byte."""

from __future__ import annotations

import errno
import mmap
import os
from functools import partial
from typing import TYPE_CHECKING

from .._os.clock import monotonic
from . import _ring_steps
from ._blocking_disk import BlockingDisk
from ._errors import DiskClosed
from ._holes import is_hole
from ._home_ring import LARGEST, ring_here
from ._patience import Patience
from ._rawfile import RawFile
from ._scans import scan
from ._stable_pages import has_stable_pages
from ._to_end import to_end

if TYPE_CHECKING:
    from ._disk import Buffer
    from ._extent import Extent
    from ._home_ring import HomeRing

_IN_PAGE = mmap.PAGESIZE - 1
_EAGER_MAX = 1 << 20  # bytes
_UNREAD = memoryview(bytearray(mmap.PAGESIZE + 1))  # where any thread puts what nothing reads


class FileDisk(BlockingDisk):
    r"""The file or block device at `path` as a disk, of the size it has now.

    What is in the page cache is read at once, without a thread; what is not waits in the home's
    io_uring, where Linux has one, or in a worker (always with HOMEBOUND_IO_URING=0 set). On a
    file system that is all memory nothing does. Few file systems can promise not to wait for a
    write. On the others, if they are local, whole pages, and parts of pages that are in the page
    cache, are written at once as long as that goes quickly; after a write that took more than
    10 ms, writes wait in these ways for a while, as they always do without `eager_writes`, and
    during a flush if the device needs its pages unchanged. A flush with nothing written since the
    last one ends at once.

    The image is locked as QEMU locks images: it has one writer, QEMU or homebound, and while that
    one has it, it can be opened `read_only` only. With `lock=False` it is opened anyway, and the
    program has to see to it that not both write.

    Raises ImageLocked if another program writes to it, ImageError if it is missing, a directory,
    empty, or not to be opened that way.

    >>> import tempfile, homebound
    >>> from homebound.block import FileDisk
    >>> async def main():
    ...     with tempfile.NamedTemporaryFile() as image:
    ...         image.truncate(1 << 20)
    ...         with FileDisk(image.name) as disk:
    ...             await disk.write(4096, b"hello", fua=True)
    ...             return await disk.read(4095, 7)
    >>> homebound.run(main())
    bytearray(b'\x00hello\x00')

    Called from: any thread.
    """

    shared_cache = True  # all go through one page cache, and fdatasync is about the whole file
    can_fast_zero = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        eager_writes: bool = True,
        lock: bool = True,
    ) -> None:
        raw = RawFile(path, read_only=read_only, lock=lock)
        self.blocking: RawFile = raw
        self.path: str = raw.path
        self.size: int = raw.size
        self.read_only: bool = read_only
        self.volatile: bool = raw.volatile
        self._fd = raw.fd
        # See RawFile.nowait. That of writing becomes None when the first attempt shows that writes
        # cannot be tried here; it may be written by several threads, all of which write None.
        self._read_flags = self._write_flags = raw.nowait
        # Where the kernel cannot say whether a read would wait, it may be far away: never eager.
        self._patience = Patience() if eager_writes and raw.nowait else None
        self._stable_pages = self._patience is not None and has_stable_pages(raw.fd)

    def __repr__(self) -> str:
        return f"<FileDisk {self.blocking!r}>"

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read what is in memory; False if a part of it is not, or the file ends before.

        Called from: any thread.
        """
        flags = self._read_flags
        if flags is None:
            return False
        try:
            return os.preadv(self._fd, (buffer,), offset, flags) == len(buffer)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._failure(error) from None

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write where the file system can promise not to wait, or where it seems to be quick.

        Called from: any thread.
        """
        flags = self._write_flags
        if flags is None:
            return self._patience is not None and self._write_eagerly(self._patience, offset, data)
        try:
            return os.pwritev(self._fd, (data,), offset, flags) == len(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and flags:
                self._write_flags = None
                return False
            raise self._failure(error) from None
        finally:
            self.blocking.changed = True

    def try_hole(self, offset: int, length: int) -> bool:
        """Return True for one hole, where the file system seems to be quick to say so.

        Called from: any thread.
        """
        patience = self._patience
        if patience is None:  # all in memory; or a home thread is not to wait for this file system
            return self.volatile and is_hole(self._fd, offset, length)
        began = monotonic()
        if patience.lost(began):
            return False
        found = is_hole(self._fd, offset, length)
        patience.tried(began, monotonic())
        return found

    def try_flush(self) -> bool:
        """Return whether nothing was written since a flush that has ended.

        Called from: any thread.
        """
        return self._fd >= 0 and self.blocking.is_stable()

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises OSError when the disk fails.

        Called from: task.
        """
        ring = self.ring_for(len(buffer))
        if ring is None:
            await super().read_into(offset, buffer)
        else:
            await ring.carry_out(_ring_steps.read(self.blocking, offset, buffer))

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`; with `fua` it is on stable storage on return.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        ring = self.ring_for(len(data))
        if ring is None:
            await super().write(offset, data, fua=fua)
        else:
            await ring.carry_out(_ring_steps.write(self, offset, data, fua=fua))

    async def flush(self) -> None:
        """Put on stable storage what was written before this call.

        Raises OSError when that fails, and from then on.

        Called from: task.
        """
        ring = self.ring_for(0)
        if ring is None:
            await super().flush()
        else:
            await ring.carry_out(_ring_steps.flush(self.blocking))

    def ring_for(self, length: int) -> HomeRing | None:
        """Return the home's ring, if it has one for requests of `length` bytes; else to workers.

        Called from: any thread.
        """
        raw = self.blocking
        if type(raw) is not RawFile or not raw.nowait or length > LARGEST:
            return None
        return ring_here()

    def end_once(self, counted: list[None]) -> None:
        """End a request as `end` does, the first time: `counted` has one entry until then.

        So it can be called again after a signal handler has raised in the middle.

        Called from: any thread.
        """
        self._gate.leave_once(counted)

    def _write_eagerly(self, patience: Patience, offset: int, data: Buffer) -> bool:
        began = monotonic()
        if len(data) > _EAGER_MAX or patience.lost(began):
            return False
        if self._stable_pages and self.blocking.flushing:
            return False  # pages that are being flushed may not change
        try:
            if (offset | len(data)) & _IN_PAGE and not self._has_edges(offset, len(data)):
                return False
            written = os.pwrite(self._fd, data, offset)
        except OSError as error:
            raise self._failure(error) from None
        finally:
            self.blocking.changed = True
        patience.tried(began, monotonic())
        return written == len(data)

    def _has_edges(self, offset: int, length: int) -> bool:
        """Return whether the pages are in memory of which only a part would be written.

        Otherwise the write would have to read them first.
        """
        end, read = offset + length, self._read_flags
        assert read is not None
        try:
            first = offset & ~_IN_PAGE
            size = (end & ~_IN_PAGE) + 1 - first
            if offset & _IN_PAGE and end & _IN_PAGE and size <= len(_UNREAD):
                # One page, or neighbours: a second system call costs more than reading the first.
                return os.preadv(self._fd, (_UNREAD[:size],), first, read) == size
            edges = {edge & ~_IN_PAGE for edge in (offset, end) if edge & _IN_PAGE}
            return all(os.preadv(self._fd, (_UNREAD[:1],), edge, read) for edge in edges)
        except BlockingIOError:
            return False

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Have the file system zero the range, in a worker; DiskError with ENOTSUP if it cannot.

        Called from: task.
        """
        await to_end(partial(self.blocking.fast_zeroes, offset, length, fua=fua, no_hole=no_hole))

    async def cache(self, offset: int, length: int) -> None:
        """Have the kernel read the range into its page cache.

        Called from: task.
        """
        await scan(partial(self.blocking.cache, offset, length))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return the file's data and holes, found in a worker; all is data if it has no holes.

        Called from: task.
        """
        return await scan(partial(self.blocking.block_status, offset, length))

    def close(self) -> None:
        """Close the image, after all that uses it; unflushed data stays with the kernel.

        Called from: any thread.
        """
        release = self.blocking.hold()  # for attempts, which use the descriptor as it is
        self._fd = -1
        self.blocking.close()
        if release is not None:
            self._gate.retire(release)

    def _failure(self, error: OSError) -> OSError:
        """Return the error of an attempt, or DiskClosed."""
        return DiskClosed(self) if self._fd < 0 and error.errno == errno.EBADF else error
