"""The operations of an image as steps: system calls that the kernel makes while a ring waits.

Each is a generator. It yields one system call after the other, and is sent what that returned, or
thrown the OSError of its failure. It does all that `RawFile` does around the same calls; it holds
the descriptor until its end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from typing import TYPE_CHECKING

from .._os.uring import READ, SYNC, WRITE
from ._errors import DiskError

if TYPE_CHECKING:
    from ._disk import Buffer
    from ._file import FileDisk
    from ._rawfile import RawFile


# A system call: what, in which file, where, for how many bytes (of a SYNC: 0 means all), and the
# memory that it uses, if any.
Step = tuple[int, int, int, int, memoryview | None]
Steps = Generator[Step, int, None]


def make(step: Step) -> int:
    """Make the system call in this thread. Blocks."""
    operation, fd, offset, _, buffer = step
    if buffer is None:
        os.fdatasync(fd)
        return 0
    if operation == READ:
        return os.preadv(fd, (buffer,), offset)
    return os.pwritev(fd, (buffer,), offset)


def read(raw: RawFile, offset: int, buffer: memoryview) -> Steps:
    """Fill `buffer`; an image that has become too short for that is an error."""
    fd = raw.begin(offset, len(buffer))
    try:
        while True:  # not `while buffer`: the jump rule
            if not buffer:
                break
            done = yield READ, fd, offset, len(buffer), buffer
            if not done:
                raise raw.too_short(offset)
            offset += done
            buffer = buffer[done:]
    finally:
        raw.end()


def write(disk: FileDisk, offset: int, data: Buffer, *, fua: bool) -> Steps:
    """Write all of `data`; with `fua`, then wait until it is on stable storage.

    A write that has to wait only for that goes into the page cache at once. Then its range is
    synced: the kernel makes writes to one file that wait for stable storage one after the other,
    but several syncs at a time, which share the disk's own flushes.
    """
    raw = disk.blocking
    fd = raw.begin(offset, len(data), changes=True)
    try:
        if not (fua and disk.try_write(offset, data)):
            start, rest = offset, memoryview(data)
            if rest.readonly:  # an address is only to be had of memory that may be written
                rest = memoryview(bytearray(rest))
            while True:  # as above
                if not rest:
                    break
                done = yield WRITE, fd, start, len(rest), rest
                if not done:
                    raise DiskError(errno.EIO, f"{raw.path!r} takes no data at {start}")
                start += done
                rest = rest[done:]
        if fua and len(data) and not raw.volatile:
            lost = raw.lost
            try:
                yield SYNC, fd, offset, len(data), None
            except OSError as error:
                raw.lose(error)
                raise
            raw.check_lost(but=lost)
    finally:
        raw.end(changes=True)


def flush(raw: RawFile) -> Steps:
    """Wait until all that was written is on stable storage."""
    fd = raw.begin(0, 0)
    try:
        if raw.is_stable():
            return
        raw.check_lost()
        with raw.syncing():
            yield SYNC, fd, 0, 0, None
    finally:
        raw.end()
