"""fallocate(2) with its modes: holes and ranges of zeroes. The os module has only the plain one."""

from __future__ import annotations

import ctypes
import errno
import os

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

# What a file system says that cannot do it there, or not for this range.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}

_libc = ctypes.CDLL(None, use_errno=True)
# Where off_t is 32 bits wide the plain name takes those; everywhere else both are one function.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _fallocate.restype = ctypes.c_int


def fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """Do it, or return False where the system cannot; the range may not be empty.

    Raises OSError when it could but failed.
    """
    if _fallocate is None:
        return False
    while _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
