"""A file or block device as blocking calls; `FileDisk` runs them in workers."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._os.guard import new_guard
from ._descriptor import ClosedDescriptor, Descriptor
from ._errors import DiskClosed, DiskError, DiskReadOnly, out_of_range
from ._fallocate import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from ._holes import extents_of
from ._image import is_in_memory, open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._extent import Extent
    from ._operations import Buffer

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_DSYNC: int | None = getattr(os, "RWF_DSYNC", None)
_ZEROES = bytes(64 << 10)
_ZEROES_AT_ONCE = 16  # buffers of it in one system call


class RawFile:
    """An open image. Every call may block, raises OSError, and may be made in many threads at once.

    `nowait` is how to ask for what is in memory: flags for preadv and pwritev, 0 if the file system
    is all memory so that nothing waits anyway, None if there is no way to ask.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        lock: bool = False,
        unchanging: bool = False,
    ) -> None:
        self.path: str = os.fspath(path)
        self.read_only: bool = read_only
        self.size: int
        fd, self.size = open_image(path, read_only=read_only, lock=lock, unchanging=unchanging)
        self._descriptor = Descriptor(fd)
        # Whether there may be changes that no fdatasync covers. Set after each change, by the
        # thread that made it, and unset by `syncing`, which says why that is right.
        self.changed: bool = True
        # The error of the last sync that failed, or None. Written by the thread that meets it (a
        # single assignment, atomic on every build); from the first on every flush reports one.
        self.lost: OSError | None = None
        self.nowait: int | None = _find_nowait(fd)
        self.volatile: bool = self.nowait == 0
        # Syncs of the whole file under way. Written under _lock; readers may see an old value.
        self.flushing: int = 0
        self._lock = new_guard()

    @property
    def fd(self) -> int:
        """The descriptor; for calls that are not made while it is being closed."""
        return self._descriptor.fd

    def __repr__(self) -> str:
        how = ", read-only" if self.read_only else ""
        return f"{self.path!r} ({self.size} bytes{how})"

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; an image that has become too short for that is an error."""
        with self._use(offset, len(buffer)) as fd:
            while True:  # not `while buffer`: the jump rule
                if not buffer:
                    break
                done = os.preadv(fd, (buffer,), offset)
                if not done:
                    raise self.too_short(offset)
                offset += done
                buffer = buffer[done:]

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write all of `data`."""
        sync = fua and not self.volatile
        flags = _DSYNC if sync and _DSYNC is not None else 0
        rest = memoryview(data)
        with self._use(offset, len(data), changes=True) as fd:
            lost = self.lost
            try:
                while True:  # not `while rest`: the jump rule
                    if not rest:
                        break
                    done = os.pwritev(fd, (rest,), offset, flags)
                    offset += done
                    rest = rest[done:]
            except OSError as error:
                # The system call reports the write or the sync, with the same numbers. A write that
                # succeeds on its own shows that the sync has failed.
                if flags and (error.errno == errno.EIO or _takes(fd, rest, offset)):
                    self.lose(error)
                raise
            if flags:
                self.check_lost(but=lost)
            if sync and not flags:
                self._make_stable(fd)

    def flush(self) -> None:
        """Wait until all that was written is on stable storage."""
        with self._use(0, 0) as fd:
            if not self.is_stable():
                self._make_stable(fd)

    def is_stable(self) -> bool:
        """Return whether a flush would have nothing to do."""
        if self.volatile or self.read_only:
            return True
        # In this order: pairs with `syncing`. The error comes last: a sync that fails between the
        # first two looks has noted it before it is no longer under way.
        return not (self.changed or self.flushing or self.lost is not None)

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Make the range a hole, where the file system has holes."""
        with self._use(offset, length, changes=True) as fd:
            if length:
                fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
            if fua:
                self._make_stable(fd)

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Zero the range: by the file system if it can, else by writing."""
        with self._use(offset, length, changes=True) as fd:
            if length and not _zero_range(fd, offset, length, no_hole=no_hole):
                _write_zeroes(fd, offset, length)
            if fua:
                self._make_stable(fd)

    def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Have the file system zero the range, or raise DiskError with ENOTSUP."""
        with self._use(offset, length, changes=True) as fd:
            if length and not _zero_range(fd, offset, length, no_hole=no_hole):
                text = f"the file system of {self.path!r} has no quick way to write zeroes"
                raise DiskError(errno.ENOTSUP, text)
            if fua:
                self._make_stable(fd)

    def cache(self, offset: int, length: int) -> None:
        """Have the kernel read the range ahead, where it can be told to."""
        with self._use(offset, length) as fd:
            if length and not self.volatile and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)

    def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return data and holes, as the file system reports them."""
        with self._use(offset, length) as fd:
            return extents_of(fd, offset, length)

    def close(self) -> None:
        """Close the image, after the calls under way. What is not flushed stays with the kernel."""
        self._descriptor.close()

    def hold(self) -> Callable[[], None] | None:
        """Keep the descriptor open, through a close, until what is returned is called.

        None if it is closed already.
        """
        try:
            self._descriptor.enter()
        except ClosedDescriptor:
            return None
        return self._descriptor.leave

    def begin(self, offset: int, length: int, *, changes: bool = False) -> int:
        """Return the descriptor, for something that is allowed; not closed until `end`."""
        try:
            fd = self._descriptor.enter()
        except ClosedDescriptor:
            raise DiskClosed(self) from None
        if not (changes and self.read_only) and 0 <= offset <= offset + length <= self.size:
            return fd
        self._descriptor.leave()
        if offset < 0 or length < 0 or offset + length > self.size:
            raise out_of_range(self, offset, length)
        raise DiskReadOnly(self)

    def end(self, *, changes: bool = False) -> None:
        """End what `begin` began; it has changed something with `changes`."""
        if changes:
            self.changed = True
        self._descriptor.leave()

    @contextmanager
    def _use(self, offset: int, length: int, *, changes: bool = False) -> Iterator[int]:
        fd = self.begin(offset, length, changes=changes)
        try:
            yield fd
        finally:
            self.end(changes=changes)

    def too_short(self, offset: int) -> DiskError:
        """Return the error of a read at `offset`, where the image has no bytes any more."""
        return DiskError(
            errno.EIO, f"{self.path!r} has become shorter: nothing is left at {offset}"
        )

    def lose(self, error: OSError) -> None:
        """Have every flush report from now on that data is lost.

        The kernel tells of a failed write-back once; a flush would not hear of it. Nor would a sync
        that waits for the same write-back at the same time, so each looks here when it has ended.
        The one that is told returns at once, and the others after the device's own flush.
        """
        self.lost = error

    def check_lost(self, *, but: OSError | None = None) -> None:
        """Raise DiskError if data is lost, other than what was when `lost` was `but`."""
        if self.lost is not but:
            text = f"a flush of {self.path!r} failed before, so data is lost: {self.lost}"
            raise DiskError(errno.EIO, text)

    def _make_stable(self, fd: int) -> None:
        """Have all that was written put on stable storage, also by the caller just now."""
        self.check_lost()
        if not (self.volatile or self.read_only):
            with self.syncing():
                os.fdatasync(fd)

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Keep account of a sync of the whole file, which the block makes."""
        # A change that is noted before `changed` is unset here is covered by this call; one that is
        # noted later is the next one's, even if this one covers it. Another flush that finds
        # `changed` unset looks at `flushing` next, so it does not end before this one; then at
        # `lost`, so it does not succeed if this one has failed.
        with self._lock:
            self.flushing += 1
        try:
            self.changed = False
            yield
        except BaseException as error:
            self.changed = True
            if isinstance(error, OSError):
                self.lost = error
            raise
        else:
            self.check_lost()
        finally:
            with self._lock:
                self.flushing -= 1


def _takes(fd: int, data: memoryview, offset: int) -> bool:
    """Return whether a file takes data into the page cache."""
    try:
        return os.pwritev(fd, (data,), offset) > 0
    except OSError:
        return False


def _zero_range(fd: int, offset: int, length: int, *, no_hole: bool) -> bool:
    hole, zeroes = PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE
    if not no_hole and fallocate(fd, hole, offset, length):
        return True
    if fallocate(fd, zeroes, offset, length):
        return True
    # tmpfs knows no ranges of zeroes, but a hole can be filled.
    return fallocate(fd, hole, offset, length) and fallocate(fd, KEEP_SIZE, offset, length)


def _write_zeroes(fd: int, offset: int, length: int) -> None:
    while length:
        if length >= len(_ZEROES):
            buffers = [_ZEROES] * min(length // len(_ZEROES), _ZEROES_AT_ONCE)
        else:
            buffers = [_ZEROES[:length]]
        done = os.pwritev(fd, buffers, offset)
        offset += done
        length -= done


def _find_nowait(fd: int) -> int | None:
    """Decided once for each file, by trying."""
    if _NOWAIT is not None:
        try:
            os.preadv(fd, [bytearray(1)], 0, _NOWAIT)
        except BlockingIOError:
            return _NOWAIT
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        else:
            return _NOWAIT
    return 0 if is_in_memory(fd) else None
