"""The errors of a copy, which say at which end and where it failed."""

from __future__ import annotations

import errno
from typing import Literal

from .._errors import DiskError

# How often in a row what was written may be lost before a flush has made it stable. Then the copy
# fails: a target that loses its connection each time would keep it busy forever.
FUTILE = 10

Action = Literal["read", "write", "zero", "flush", "map"]


class CopyError(DiskError):
    """A failure of one of the disks: what was tried, and the offset where it failed."""

    def __init__(self, action: Action, offset: int, error: OSError, *, target: bool) -> None:
        words = str(error) if isinstance(error, DiskError) else error.strerror or str(error)
        super().__init__(error.errno or errno.EIO, words)
        self.action: Action = action
        self.offset: int = offset
        self.target: bool = target  # it was the target, not the source


class Differs(DiskError):
    """A byte of the target that differs from the source's."""

    def __init__(self, offset: int) -> None:
        super().__init__(errno.EIO, f"source and target differ at offset {offset}")
        self.offset: int = offset


def never_stable(offset: int) -> CopyError:
    """Return the error of a copy that has lost what it wrote `FUTILE` times in a row."""
    words = f"its connection was lost {FUTILE} times before what was written could be flushed"
    return CopyError("flush", offset, DiskError(errno.EIO, words), target=True)


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure at the lowest offset; if there is none, the first exception."""
    failures = [each for each in group.exceptions if isinstance(each, (CopyError, Differs))]
    return min(failures, key=lambda each: each.offset, default=group.exceptions[0])
