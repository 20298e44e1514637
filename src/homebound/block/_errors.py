"""The errors of disks. All are OSErrors, so `errno` says what to tell a client."""

from __future__ import annotations

import errno


class DiskError(OSError):
    """A disk could not do what was asked; `errno` is set."""

    def __str__(self) -> str:
        return str(self.strerror)  # a sentence of ours, which "[Errno 2]" would not improve


class ImageError(DiskError):
    """An image cannot be opened as a disk; the text says why and what to do about it."""


class ImageLocked(ImageError):
    """Another program has the image open in a way that does not go with this one."""


class OutOfRange(DiskError, ValueError):
    """The range asked for is not inside the disk."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)


def out_of_range(disk: object, offset: int, length: int) -> OutOfRange:
    """Return the error for a range that is not inside `disk`."""
    return OutOfRange(f"{length} bytes at {offset} are not inside {disk!r}")


class DiskClosed(DiskError):
    """The disk was closed before it was asked."""

    def __init__(self, disk: object) -> None:
        super().__init__(errno.EBADF, f"{disk!r} is closed")


class DiskReadOnly(DiskError):
    """A change was asked of a disk that was opened for reading only."""

    def __init__(self, disk: object) -> None:
        super().__init__(errno.EROFS, f"{disk!r} was opened for reading only")
