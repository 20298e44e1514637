"""fallocate(2) with its modes: holes and ranges of zeroes. The os module has only the plain one."""

from __future__ import annotations

import errno
import functools
import os
from typing import Any

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

# What a file system says that cannot do it there, or not for this range.
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}


@functools.cache
def _system_call() -> Any:
    """Return the C library's function, None if it has none.

    Loaded at its first use: most programs that read disks punch no hole.
    """
    import ctypes  # noqa: PLC0415  (see above)

    libc = ctypes.CDLL(None, use_errno=True)
    # Where off_t is 32 bits wide the plain name takes those; everywhere else both are one function.
    function = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        function.restype = ctypes.c_int
    return function


def fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """Do it, or return False where the system cannot; the range may not be empty.

    Raises OSError when it could but failed.
    """
    function = _system_call()
    if function is None:
        return False
    import ctypes  # noqa: PLC0415  (loaded above)

    while function(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
