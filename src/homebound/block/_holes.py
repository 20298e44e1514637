"""The data and holes of a file, by lseek(2) with SEEK_DATA and SEEK_HOLE."""

from __future__ import annotations

import errno
import os

from ._extent import Extent, merged

_PAGE = 4096
# What is said where nothing is known of holes: block devices and some file systems.
_CANNOT = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


def extents_of(fd: int, offset: int, length: int) -> list[Extent]:
    """Return the extents of a range of the file. Blocks.

    What is past the end of a file that has become shorter is said to be data: its reader gets the
    error, which an extent cannot tell. The descriptor's position moves; nothing of ours uses it.
    """
    stop = offset + length
    end = min(stop, os.lseek(fd, 0, os.SEEK_END))
    found: list[Extent] = []
    while offset < end:
        data = _seek(fd, offset, end, os.SEEK_DATA)
        if data > offset:
            found.append(Extent(data - offset, hole=True, zero=True))
            offset = data
            continue
        # Another thread may punch a hole here right now: go on by a page at least.
        hole = max(_seek(fd, offset, end, os.SEEK_HOLE), min(end, (offset | (_PAGE - 1)) + 1))
        found.append(Extent(hole - offset))
        offset = hole
    if offset < stop:
        found.append(Extent(stop - offset))
    return merged(found)


def is_hole(fd: int, offset: int, length: int) -> bool:
    """Return whether the range of the file is one hole, by one look for data.

    That passes over a hole by what the file system has in memory of its tree of extents. Only the
    first look there reads the disk. It never waits for data, and a range that is data is found at
    once not to be a hole. (The end of data is another matter: a file may have a terabyte of it.)
    """
    end = offset + length
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= end
    except OSError as error:
        # A hole up to the end of the file, or no file any more.
        return error.errno == errno.ENXIO and os.fstat(fd).st_size >= end


def _seek(fd: int, offset: int, end: int, whence: int) -> int:
    """Return where the next data or hole begins, at most `end`."""
    try:
        return min(end, os.lseek(fd, offset, whence))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end of the file, or no file any more
            return end
        if error.errno in _CANNOT:  # all is data
            return offset if whence == os.SEEK_DATA else end
        raise
