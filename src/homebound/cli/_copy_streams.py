"""Copies between a disk and standard input or output."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from ..block import Disk, ImageError
from ..block._copying.streams import CopyIn, CopyOut
from ..block._locks import lock_image
from ..block._to_end import to_end
from ..nbd import NBDDisk
from ._copy_report import Report
from ._errors import CommandError
from ._interrupt import ending_with
from ._places import is_plain_file, not_created, open_place

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from ..block._operations import Buffer
    from ._remote import Link

_STDIN, _STDOUT = 0, 1
_LARGEST = (1 << 63) - 1  # the largest offset in a file


class GrowingFile(Disk):
    """A file that is written to as far as a stream goes, and then gets that size."""

    read_only = False

    def __init__(self, path: str) -> None:
        self.size: int = _LARGEST
        self.path: str = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            lock_image(self._fd, path, read_only=False)
            os.ftruncate(self._fd, 0)
        except ImageError:
            self.close()
            raise
        except OSError as error:
            raise not_created(path, error) from error

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from what was written."""
        await to_end(partial(os.preadv, self._fd, [buffer], offset))

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`, in a worker."""
        await to_end(partial(self._write, offset, memoryview(data)))
        if fua:
            await self.flush()

    async def flush(self) -> None:
        """Put on stable storage what was written."""
        await to_end(partial(os.fsync, self._fd))

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Do nothing: it is a hint."""

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Write zeroes."""
        del no_hole
        await self.write(offset, bytes(length), fua=fua)

    async def finish(self, size: int) -> None:
        """Give the file its size; what was not written reads as zeroes."""
        await to_end(partial(os.ftruncate, self._fd, size))
        await self.flush()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, offset: int, data: memoryview) -> None:
        while True:  # not `while data`: the jump rule
            if not data:
                break
            done = os.pwrite(self._fd, data, offset)
            offset += done
            data = data[done:]


async def copy_out(source: Disk, report: Report) -> None:
    """Copy a disk to standard output. Raises CopyError."""
    copy = CopyOut(source, _STDOUT)
    async with report.showing("copying", copy):
        await copy.run()
    report.finish(copy, verified=False, began_at=0)


async def copy_in(stack: AsyncExitStack, spec: str, link: Link, *, as_json: bool) -> None:
    """Copy standard input to the disk that `spec` names, or to a new file of its length.

    Raises CopyError, CommandError, DiskError or NBDError.
    """
    target: Disk
    if is_plain_file(spec):
        target = await to_end(partial(GrowingFile, spec))
    else:
        target = await open_place(spec, read_only=False, link=link)
    stack.enter_context(target)
    if target.read_only:
        raise CommandError(f"cannot write to {spec!r}: it is read-only")
    keeps = isinstance(target, NBDDisk) and link.reconnect_delay > 0
    copy = CopyIn(_STDIN, target, fresh=isinstance(target, GrowingFile), keeps=keeps)
    report = Report(None, as_json=as_json)
    async with report.showing("copying", copy):
        await ending_with(copy.run(), target)
    if isinstance(target, GrowingFile):
        await target.finish(copy.done_until)
    report.finish(copy, verified=False, began_at=0)
