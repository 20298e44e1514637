"""Opening an image: every way it can be wrong, in words, before anything is served from it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path

from ._errors import ImageError
from ._locks import lock_image

_BLKROGET = 0x125E  # the request of Linux: is this device read-only?

_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
# What the system's words alone do not tell about an image.
_NOTES = {
    errno.ENOTDIR: "a part of its path",
    errno.ENXIO: "it is a socket, or a device that is not there",
}
# Those that opening it for reading only may get around.
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY}


def open_image(
    path: str | os.PathLike[str], *, read_only: bool, lock: bool, unchanging: bool = False
) -> tuple[int, int]:
    """Return a descriptor of the image and its size in bytes, perhaps locked. Raises ImageError."""
    name = os.fspath(path)
    # O_NONBLOCK: opening a pipe would wait for its writer. Files and block devices ignore it.
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(name, flags)
    except OSError as error:
        raise _refusal(name, error, read_only=read_only) from error
    try:
        os.set_blocking(fd, True)  # io_uring does not wait for files that are not
        size = _size(fd, name)
        if not read_only:
            _check_writable(fd, name)
        if lock:
            lock_image(fd, name, read_only=read_only, unchanging=unchanging)
    except BaseException:
        os.close(fd)
        raise
    return fd, size


def _refusal(name: str, error: OSError, *, read_only: bool) -> ImageError:
    number = error.errno or errno.EIO
    notes = [_NOTES[number]] if number in _NOTES else []
    if number in _NOT_WRITABLE and not read_only and os.access(name, os.R_OK):
        notes.append("for writing; it can be opened read-only")
    text = f"cannot open image {name!r}: {error.strerror or error}"
    return ImageError(number, f"{text} ({'; '.join(notes)})" if notes else text)


def _size(fd: int, name: str) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        text = os.strerror(errno.EISDIR)
        raise ImageError(errno.EISDIR, f"cannot open image {name!r}: {text}")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        text = "it is neither a file nor a block device"
        raise ImageError(errno.EINVAL, f"cannot open image {name!r}: {text}")
    try:
        size = os.lseek(fd, 0, os.SEEK_END)  # st_size is 0 for a block device
    except OSError as error:  # as of files in /proc, which are made up as they are read
        text = f"it has no size that can be told ({error.strerror})"
        raise ImageError(errno.EINVAL, f"cannot open image {name!r}: {text}") from error
    if not size:
        text = "it is empty; give it a size first (truncate -s 1G)"
        raise ImageError(errno.EINVAL, f"cannot open image {name!r}: {text}")
    return size


def _check_writable(fd: int, name: str) -> None:
    """Linux opens a read-only device for writing, and refuses each write to it."""
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return
    answer = fcntl.ioctl(fd, _BLKROGET, bytes(4))
    if int.from_bytes(answer, sys.byteorder):
        text = f"{os.strerror(errno.EROFS)} (it is a read-only device; it can be opened read-only)"
        raise ImageError(errno.EROFS, f"cannot open image {name!r}: {text}")


def is_in_memory(fd: int) -> bool:
    """Return whether the file system is all memory, so that no read of the file waits."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return False
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0] in _MEMORY
    return False
