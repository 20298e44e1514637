"""A file descriptor that several threads use and one of them closes."""

from __future__ import annotations

import os
import warnings

from .._os.guard import new_guard


class ClosedDescriptor(Exception):  # noqa: N818  (the caller names the disk)
    """The descriptor has been closed."""


class Descriptor:
    """Used from `enter` to `leave`; `close` closes it once the last user has left.

    If it were closed while a thread is about to make a system call, its number could mean another
    file by then. A worker whose task was cancelled is such a thread.
    """

    __slots__ = ("_closed", "_lock", "_users", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd  # for callers that know that it is not being closed
        self._lock = new_guard()  # guards the two below
        self._users = 0
        self._closed = False

    def enter(self) -> int:
        """Return the number, which stays the file's until `leave`."""
        with self._lock:
            if self._closed:
                raise ClosedDescriptor
            self._users += 1
        return self.fd

    def leave(self) -> None:
        """End a use that `enter` began."""
        with self._lock:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            os.close(self.fd)

    def close(self) -> None:
        """Admit no more users. May be called again."""
        with self._lock:
            now = not self._closed and not self._users
            self._closed = True
        if now:
            os.close(self.fd)

    def __del__(self) -> None:
        if not self._closed:
            os.close(self.fd)
            warnings.warn(f"descriptor {self.fd} was not closed", ResourceWarning, 2, source=self)
