"""The parts that all disks of scripts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._disk import Disk
from .._errors import DiskClosed, DiskReadOnly

if TYPE_CHECKING:
    from .patience import Patience


class Scripted(Disk):
    """A disk whose operations a script carries out."""

    closed: bool = False
    patience: Patience

    @property
    def slices(self) -> int:
        """The number of workers that share the requests a connection sends together.

        Called from: any thread.
        """
        return self.patience.slices

    def check_open(self) -> None:
        """Raise DiskClosed if it is closed.

        Called from: any thread.
        """
        if self.closed:
            raise DiskClosed(self)

    def check(self, offset: int, length: int, *, changes: bool = False) -> None:
        """Raise a DiskError unless the request may be carried out.

        Called from: any thread.
        """
        if self.closed:
            self.check_open()  # which raises the error
        if offset < 0 or length < 0 or offset + length > self.size:
            self.check_range(offset, length)  # as above
        if changes and self.read_only:
            raise DiskReadOnly(self)


def shown(value: object) -> str:
    """Show what a function of a script returned, in a few words."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004  (of a line)
