"""A part of a disk as a disk of its own: a partition, say."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ._disk import need_disk
from ._errors import DiskError
from ._filter import Filter

if TYPE_CHECKING:
    from ._disk import Disk
    from ._operations import Buffer


class SliceDisk(Filter):
    """The `size` bytes of `disk` from `offset` on. It does not close `disk`.

    Raises DiskError if they are not inside `disk`, there are none, or they do not begin and end
    where a block of `disk.minimum_block` bytes does; TypeError for what is no number of bytes.

    >>> import homebound
    >>> from homebound.block import MemoryDisk, SliceDisk
    >>> async def main():
    ...     with MemoryDisk(1 << 20) as disk, SliceDisk(disk, 4096, 8192) as part:
    ...         await part.write(1, b"hello")
    ...         return await disk.read(4097, 5)
    >>> homebound.run(main())
    bytearray(b'hello')

    Called from: any thread.
    """

    def __init__(self, disk: Disk, offset: int, size: int) -> None:
        need_disk("SliceDisk", disk)
        for what, number in (("offset", offset), ("size", size)):
            if not isinstance(number, int):
                message = f"SliceDisk: the {what} is {number!r}; it must be a number of bytes"
                raise TypeError(message)
        if size <= 0 or offset < 0 or offset + size > disk.size:
            text = f"cannot make a disk of {size} bytes at {offset}: they are not inside {disk!r}"
            raise DiskError(errno.EINVAL, text)
        granule = disk.minimum_block
        if (offset | size) % granule:
            text = (
                f"cannot make a disk of {size} bytes at {offset}: {disk!r} has blocks of {granule}"
            )
            raise DiskError(errno.EINVAL, text)
        super().__init__(disk, start=offset, size=size)

    def __repr__(self) -> str:
        return f"<SliceDisk of {self.size} bytes at {self._start} of {self.disk!r}>"

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Do as the disk below does; never outside of the slice.

        Called from: any thread.
        """
        self._check(offset, len(buffer))
        return self.disk.try_read_into(self._start + offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Do as the disk below does; never outside of the slice.

        Called from: any thread.
        """
        self._check(offset, len(data), changes=True)
        return self.disk.try_write(self._start + offset, data)
