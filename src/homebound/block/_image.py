"""Opening an image: every way it can be wrong, in words, before anything is served from it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ._errors import ImageError

_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_ADVICE = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is not a directory",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "it is on a read-only file system",
    errno.ETXTBSY: "it is being executed",
    errno.EISDIR: "it is a directory",
    errno.ELOOP: "its path has too many symbolic links",
    errno.ENXIO: "it is a socket, or a device that is not there",
}
# Those that opening it for reading only may get around.
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY}


def open_image(path: str | os.PathLike[str], *, read_only: bool) -> tuple[int, int]:
    """A descriptor of the image and its size in bytes. Raises ImageError."""
    name = os.fspath(path)
    # O_NONBLOCK: opening a pipe would wait for its writer. Files and block devices ignore it.
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(name, flags)
    except OSError as error:
        raise _refusal(name, error, read_only=read_only) from error
    try:
        return fd, _size(fd, name)
    except BaseException:
        os.close(fd)
        raise


def _refusal(name: str, error: OSError, *, read_only: bool) -> ImageError:
    number = error.errno or errno.EIO
    text = f"cannot open image {name!r}: {_ADVICE.get(number, error.strerror)}"
    if number in _NOT_WRITABLE and not read_only and os.access(name, os.R_OK):
        text += " (for writing; it can be opened read-only)"
    return ImageError(number, text)


def _size(fd: int, name: str) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise ImageError(errno.EISDIR, f"cannot open image {name!r}: it is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        text = "it is neither a file nor a block device"
        raise ImageError(errno.EINVAL, f"cannot open image {name!r}: {text}")
    size = os.lseek(fd, 0, os.SEEK_END)  # st_size is 0 for a block device
    if not size:
        text = "it is empty; give it a size first (truncate -s 1G)"
        raise ImageError(errno.EINVAL, f"cannot open image {name!r}: {text}")
    return size


def is_in_memory(fd: int) -> bool:
    """Whether the file lives in a file system that is all memory, so that no read of it waits."""
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
