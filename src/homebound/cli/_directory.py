"""`--dir`: the images of a directory, found when a client asks for one by its file's name.

Several connections to one file share a disk, whatever the names of its links: the file is opened
for the first of them, and flushed and closed after the last.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .._os.guard import new_guard
from ..block import BlockingDisk, FileDisk, ImageError
from ._disks import is_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..block import Disk
    from ._disks import Opener


class _Entry:
    """A file that is open, or being opened or closed."""

    def __init__(self) -> None:
        self.lock = new_guard()  # held while it is opened and closed
        self.disk: Disk | None = None  # under the lock
        self.users = 0  # under the guard of the directory


class Directory:
    """The images in a directory. Raises OSError if it is none. Its methods block."""

    def __init__(self, path: str, opener: Opener) -> None:
        self.path = path
        self._opener = opener
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._where = _place_of(fd)
        finally:
            os.close(fd)
        self._guard = new_guard()
        self._entries: dict[str, _Entry] = {}  # by the real path; under the guard

    def names(self) -> list[str]:
        """Return the names of the images that can be served, sorted."""
        with os.scandir(self.path) as entries:
            return sorted(entry.name for entry in entries if self._is_image(entry))

    def open(self, name: str) -> tuple[Disk, Callable[[], None]] | None:
        """Return a disk, and what its user calls in the end; None if there is no such image.

        Raises DiskError if it cannot be served.
        """
        if not name or name.startswith(".") or "/" in name:
            return None
        path = os.path.join(self.path, name)  # noqa: PTH118  (a Path would drop a leading "./")
        if not os.path.lexists(path) or os.path.isdir(path):  # noqa: PTH112
            return None
        if is_script(name):  # clients choose names, not programs to run
            words = "it is a script, not an image; serve it by --export NAME=disk.py"
            raise ImageError(errno.EPERM, words)
        real = self._inside(path)
        with self._guard:
            entry = self._entries.setdefault(real, _Entry())
            entry.users += 1
        try:
            with entry.lock:
                if entry.disk is None:
                    entry.disk = self._open(path)
                return entry.disk, partial(self._leave, real, entry)
        except BaseException:
            self._leave(real, entry)
            raise

    def _inside(self, path: str) -> str:
        """Return the real path of an image. Raises ImageError if a link leads out."""
        real = os.path.realpath(path)
        if self._where not in Path(real).parents:
            raise _leads_out()
        return real

    def _open(self, path: str) -> Disk:
        """Open an image, and see that it is inside: a link may have been changed meanwhile."""
        disk = self._opener.open(path)
        if isinstance(disk, FileDisk) and self._where not in _place_of(disk.blocking.fd).parents:
            disk.close()
            raise _leads_out()
        return disk

    def _leave(self, real: str, entry: _Entry) -> None:
        with entry.lock:
            with self._guard:
                entry.users -= 1
                disk = None if entry.users else entry.disk
            if disk is None:
                self._forget(real, entry)
                return
            entry.disk = None
            try:
                if isinstance(disk, BlockingDisk) and not disk.read_only:
                    disk.blocking.flush()
            finally:
                disk.close()
                self._forget(real, entry)

    def _forget(self, real: str, entry: _Entry) -> None:
        with self._guard:
            if not entry.users and self._entries.get(real) is entry:
                del self._entries[real]

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Return whether a file is one to tell of: not hidden, with a size, and inside."""
        try:
            entry.name.encode()
            if entry.name.startswith(".") or is_script(entry.name):
                return False
            status = entry.stat()
            if entry.is_symlink():
                self._inside(entry.path)
        except (OSError, UnicodeEncodeError):
            return False
        return stat.S_ISBLK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_size > 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


def _leads_out() -> ImageError:
    return ImageError(errno.EPERM, "it is a symbolic link that leads out of the directory")


def _place_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()
