"""The locks by which QEMU and homebound keep each other from writing to one image.

QEMU's block layer numbers what a user of an image may do (its permissions), and gives each number
two bytes of the image: a read lock on byte 100 + n says "I do this", one on 200 + n "others must
not". A user locks its bytes first and then looks for locks of others that contradict them: of two
that start at the same moment both may fail, but never do both go on. The locks belong to the open
file description, so they last as long as the descriptor, and end with the process however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from ._errors import ImageError, ImageLocked
from ._lock_holders import describe_holder

_DOES = 100
_DENIES = 200
_READ, _WRITE, _RESIZE = 0, 1, 3  # QEMU's numbers of permissions

# homebound's own, beside QEMU's: tells the next one what kind of program it meets.
_IS_HOMEBOUND = 0x4842

_SET: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_GET: int | None = getattr(fcntl, "F_OFD_GETLK", None)
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, pid
_NO_LOCKS_HERE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}


def lock_image(fd: int, name: str, *, read_only: bool, unchanging: bool = False) -> None:
    """Lock the open image against a second writer, as QEMU does; a reader shares it with all.

    A reader for which it must be `unchanging` shares it with readers only.

    Does nothing where the file system has no such locks. Raises ImageLocked, which names the
    kind of program that is in the way, or ImageError.
    """
    if _SET is None or _GET is None or not _can_lock(fd, _GET):
        return
    does = {_READ} if read_only else {_READ, _WRITE}
    denies = {_WRITE, _RESIZE} if unchanging or not read_only else set()
    own = {_DOES + number for number in does} | {_DENIES + number for number in denies}
    if denies:
        own.add(_IS_HOMEBOUND)
    contradicting = [_DENIES + number for number in does] + [_DOES + number for number in denies]
    for byte in sorted(own):
        _lock(fd, _SET, byte, name)
    for byte in sorted(contradicting):
        pid = _find_lock(fd, _GET, byte)
        if pid is not None:
            raise _refusal(fd, name, byte, pid)


def _can_lock(fd: int, get: int) -> bool:
    try:
        _find_lock(fd, get, _DOES)
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            return False
        raise
    return True


def _lock(fd: int, set_: int, byte: int, name: str) -> None:
    """Take a read lock, which others may have as well."""
    try:
        fcntl.fcntl(fd, set_, struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # another program's write lock
            assert _GET is not None
            pid = _find_lock(fd, _GET, byte, fcntl.F_RDLCK) or 0
            raise _refusal(fd, name, byte, pid) from error
        text = f"cannot lock image {name!r}: {error.strerror}"
        raise ImageError(error.errno or errno.EIO, text) from error


def _find_lock(fd: int, get: int, byte: int, kind: int = fcntl.F_WRLCK) -> int | None:
    """Return the process whose lock prevents one of `byte`, -1 if unknown; None without one."""
    wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)
    found, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, get, wanted))
    return None if found == fcntl.F_UNLCK else int(pid)


def _refusal(fd: int, name: str, byte: int, pid: int) -> ImageLocked:
    assert _GET is not None
    # A write lock there is one of the whole file.
    is_homebound = (
        _find_lock(fd, _GET, _IS_HOMEBOUND) is not None
        and _find_lock(fd, _GET, _IS_HOMEBOUND, fcntl.F_RDLCK) is None
    )
    holder = describe_holder(fd, byte, pid, is_homebound=is_homebound)
    does = "denies it to others" if byte >= _DENIES else "has it open for writing"
    return ImageLocked(errno.EBUSY, f"cannot open image {name!r}: {holder} {does}")
