"""A disk as its users see it: attempts that never block, operations to await, calls that block.

A user first makes the attempt, in its home thread and without a coroutine; only when the disk says
that it would have to wait does the user await the operation. For data that is in memory, which is
most of it, nothing is handed from thread to thread.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from inspect import isfunction
from operator import index
from typing import TYPE_CHECKING

from .._core.coroutines import shown
from .._core.current import current_context, main_context
from .._core.places import served_context
from .._threads.background import Background
from .._threads.block_on import block_on
from ._buffers import bytes_of, fills, room_in, takes
from ._errors import DiskError, out_of_range
from ._extent import Extent
from ._gate import Drained, Gate, Inside, counted_attempt, counted_operation
from ._operations import Buffer, Operations

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

__all__ = ["Buffer", "Disk", "Operations"]


def _counted_read(operation: Any) -> Any:
    return counted_operation(fills(operation))


def _counted_write(operation: Any) -> Any:
    return counted_operation(takes(operation))


_COUNTED = (
    (("try_read_into", "try_write", "try_hole"), counted_attempt),
    (("read_into",), _counted_read),
    (("write",), _counted_write),
    (
        ("flush", "trim", "write_zeroes", "fast_zeroes", "cache", "block_status"),
        counted_operation,
    ),
)

# The home of calls that block in a program that has no context, as a script without a loop. Its
# thread is started by the first of them, and ends with the interpreter.
_background = Background("disks")


class Disk(ABC):
    """A fixed number of bytes that can be read and written anywhere.

    Offsets and lengths are in bytes, of any alignment. A range must be inside the disk, or
    OutOfRange is raised; to change a disk that is `read_only` raises DiskReadOnly. The attempts
    (`try_...`) make neither check: their caller has made both beforehand.

    The operations that a subclass defines are counted (see `drained`); one that is called by
    another operation of the same disk is part of that one. A buffer may be of any kind whose bytes
    are contiguous; the operation gets single bytes. It belongs to the disk until the operation has
    ended. A cancelled operation ends no earlier than the calls that it has begun.
    """

    size: int  # bytes; never changes
    read_only: bool
    # What a flush or a FUA write has made stable is stable for all users of the disk, however many
    # connections they come by. True for whatever keeps no cache for each user.
    shared_cache: bool = False
    # There is no stable storage behind it: flush and FUA have nothing to do.
    volatile: bool = False
    preferred_block: int = 4096  # bytes; a power of two, at least 512
    # Requests that are not multiples of this may be refused with EINVAL. A power of two.
    minimum_block: int = 1
    # Bytes that one read or write may have; None: any number.
    maximum_transfer: int | None = None
    # `fast_zeroes` may succeed. Else it never does.
    can_fast_zero: bool = False
    # What a server says that it does: a flush, FUA and a trim are allowed even if they do nothing.
    can_flush: bool = True
    can_fua: bool = True
    can_trim: bool = True
    rotational: bool = False  # seeks take long

    _gate: Gate  # counts the requests; see _gate.py

    def __init_subclass__(cls, **options: Any) -> None:
        """Count the requests that the class defines, so that no method has to remember it."""
        super().__init_subclass__(**options)
        for names, counted in _COUNTED:
            for name in names:
                method = vars(cls).get(name)
                if isfunction(method) and not hasattr(method, "_homebound_counted"):
                    setattr(cls, name, counted(method))

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Make the gate here: a subclass may forget to call `__init__`."""
        self = super().__new__(cls)
        self._gate = Gate()
        return self

    @property
    def interruptions(self) -> int:
        """The number of times that unflushed writes may have been lost; 0 for most disks.

        A disk on a server counts each connection that it loses: the server may have been restarted
        since, and then a flush says nothing of the writes before. Writes are on stable storage if
        the number is the same before the first of them as after the flush that follows them.

        Called from: any thread.
        """
        return 0

    # Attempts.

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` from `offset` on at once; False, without waiting, if that needs a wait.

        After False the buffer may hold anything. Raises OSError when the disk fails.

        Called from: any thread.
        """
        del offset, buffer
        return False

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write at once; False, without waiting, if that needs a wait, and then write again.

        After False a part may have been written. Raises OSError when the disk fails.

        Called from: any thread.
        """
        del offset, data
        return False

    def try_flush(self) -> bool:
        """Return True if a flush would have nothing to do, as nothing has changed since the last.

        Called from: any thread.
        """
        return self.volatile

    def try_cache(self) -> bool:
        """Return True if `cache` has nothing to do; False to call it.

        Called from: any thread.
        """
        return getattr(self.cache, "__func__", None) is Disk.cache

    def try_hole(self, offset: int, length: int) -> bool:
        """Return True if `block_status` would say that the range is one hole; False to ask it.

        Called from: any thread.
        """
        del offset, length
        return False

    # Operations.

    @abstractmethod
    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises OSError when the disk fails.

        Called from: task.
        """

    @abstractmethod
    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`; with `fua` it is on stable storage on return.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Put on stable storage all that was written before this call.

        Raises OSError when that fails, and from then on: what was lost stays lost.

        Called from: task.
        """

    @abstractmethod
    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give a hint: the range may be dropped; what it reads as afterwards is undefined.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """

    @abstractmethod
    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes; with `no_hole` storage for it is set aside.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Do as `write_zeroes` if that is quicker than writing; else raise DiskError, ENOTSUP.

        Then nothing has been changed. Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        del offset, length, fua, no_hole
        raise DiskError(errno.ENOTSUP, f"{self!r} has no quick way to write zeroes")

    async def cache(self, offset: int, length: int) -> None:
        """Give a hint: the range will be read soon. Changes nothing that can be read.

        Called from: task.
        """
        self.check_range(offset, length)

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return how the range is stored, in order; the extents add up to `length` bytes.

        A disk that cannot tell says that all is data. Raises OSError when the disk fails.

        Called from: task.
        """
        self.check_range(offset, length)
        return [Extent(length)] if length else []

    @abstractmethod
    def close(self) -> None:
        """Let go of what is behind it; later use raises DiskClosed. May be called again.

        Called from: any thread.
        """

    async def read(self, offset: int, length: int) -> bytearray:
        """Return the `length` bytes at `offset`. Raises OSError when the disk fails.

        Called from: task.
        """
        data = self._buffer(offset, length)
        await self.read_into(offset, memoryview(data))
        return data

    # Draining.

    def drained(self) -> Drained:
        """Keep requests out of the block of `async with disk.drained():`; none begins inside it.

        Those under way are waited for; new ones wait, and go on in their order when the last of
        all sections has ended, whichever tasks and homes they are of. A thread uses `with`. Raises
        WouldDeadlock in a request of this disk; a request made inside by the same task gets that.

        Called from: any thread.
        """
        return Drained(self._gate)

    def request(self) -> Inside:
        """Count the block of `async with disk.request():` as a request of the disk, for draining.

        For code that calls `BlockingDisk.blocking` itself: those calls are not counted.

        Called from: any thread.
        """
        return Inside(self._gate)

    def try_begin(self) -> bool:
        """Count a request until `end`, at once; False, and it is not counted, while drained.

        As `request`, for code that begins in one thread and ends in another: a server that hands
        calls on `BlockingDisk.blocking` to workers.

        Called from: any thread.
        """
        return self._gate.enter()

    async def begin(self) -> None:
        """Count a request until `end`, after waiting for its turn while drained.

        Called from: task.
        """
        if not self._gate.enter():
            await self._gate.wait()

    def end(self) -> None:
        """End a request that `begin` or `try_begin` has begun.

        Called from: any thread.
        """
        self._gate.leave()

    # Calls that block, by the rule of `homebound.block_on`: a home turns its loop meanwhile, a
    # thread without a context sleeps. `timeout` is in seconds; TimeoutError after it.

    def read_sync(self, offset: int, length: int, *, timeout: float | None = None) -> bytearray:
        """Return the `length` bytes at `offset`. Blocks; raises OSError when the disk fails.

        Called from: any thread.
        """
        data = self._buffer(offset, length)
        self.read_into_sync(offset, memoryview(data), timeout=timeout)
        return data

    def read_into_sync(
        self, offset: int, buffer: memoryview, *, timeout: float | None = None
    ) -> None:
        """Fill `buffer` from `offset` on. Blocks; raises OSError when the disk fails.

        Called from: any thread.
        """
        room = room_in(buffer, offset)
        self.check_range(offset, len(room))
        if not self._attempt(self.try_read_into, offset, room):
            self._wait_for(self.read_into(offset, room), timeout)

    def write_sync(
        self, offset: int, data: Buffer, *, fua: bool = False, timeout: float | None = None
    ) -> None:
        """Write `data`, with `fua` to stable storage. Blocks; raises OSError when it fails.

        Called from: any thread.
        """
        data = bytes_of(data, offset)
        self.check_range(offset, len(data))
        slow = self.read_only or (fua and not self.volatile)
        if slow or not self._attempt(self.try_write, offset, data):
            self._wait_for(self.write(offset, data, fua=fua), timeout)

    def flush_sync(self, *, timeout: float | None = None) -> None:
        """Put on stable storage what was written before. Blocks; raises OSError when it fails.

        Called from: any thread.
        """
        self._wait_for(self.flush(), timeout)

    def trim_sync(
        self, offset: int, length: int, *, fua: bool = False, timeout: float | None = None
    ) -> None:
        """Give a hint that the range may be dropped. Blocks; raises OSError when it fails.

        Called from: any thread.
        """
        self._wait_for(self.trim(offset, length, fua=fua), timeout)

    def write_zeroes_sync(
        self,
        offset: int,
        length: int,
        *,
        fua: bool = False,
        no_hole: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make the range read as zeroes. Blocks; raises OSError when it fails.

        Called from: any thread.
        """
        self._wait_for(self.write_zeroes(offset, length, fua=fua, no_hole=no_hole), timeout)

    def fast_zeroes_sync(
        self,
        offset: int,
        length: int,
        *,
        fua: bool = False,
        no_hole: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Do as `fast_zeroes`. Blocks; raises OSError, ENOTSUP if it would not be quick.

        Called from: any thread.
        """
        self._wait_for(self.fast_zeroes(offset, length, fua=fua, no_hole=no_hole), timeout)

    def cache_sync(self, offset: int, length: int, *, timeout: float | None = None) -> None:
        """Give a hint that the range will be read soon. Blocks.

        Called from: any thread.
        """
        self._wait_for(self.cache(offset, length), timeout)

    def block_status_sync(
        self, offset: int, length: int, *, timeout: float | None = None
    ) -> list[Extent]:
        """Return how the range is stored. Blocks; raises OSError when the disk fails.

        Called from: any thread.
        """
        return self._wait_for(self.block_status(offset, length), timeout)

    def _buffer(self, offset: int, length: int) -> bytearray:
        try:
            return bytearray(length)
        except (MemoryError, OverflowError, TypeError, ValueError):
            self.check_range(offset, length)  # says what is wrong
            raise

    def _attempt(self, attempt: Callable[[int, Any], bool], offset: int, data: Buffer) -> bool:
        try:
            return attempt(offset, data)
        except OSError as error:
            if error.errno == errno.EBADF:
                return False  # closed; the operation says so in words
            raise

    def _wait_for(self, operation: Coroutine[Any, Any, T], timeout: float | None) -> T:
        try:
            self._gate.check_owner("a call that blocks")
        except BaseException:
            operation.close()
            raise
        if current_context() or served_context() or main_context():
            result: T = block_on(operation, timeout=timeout)
        else:
            result = _background.block_on(operation, timeout=timeout)
        return result

    def check_range(self, offset: int, length: int) -> None:
        """Raise OutOfRange unless the range is inside the disk.

        Called from: any thread.
        """
        try:
            outside = offset < 0 or length < 0 or offset + length > self.size
            index(offset), index(length)
        except TypeError:
            message = (
                f"a range is an offset and a length, in bytes; got {shown(offset)} and "
                f"{shown(length)}"
            )
            raise TypeError(message) from None
        if outside:
            raise out_of_range(self, offset, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def need_disk(what: str, disk: object) -> None:
    """Raise TypeError for what is no disk, the path of an image above all.

    Called from: any thread.
    """
    if isinstance(disk, Disk):
        return
    hint = ""
    if isinstance(disk, (str, os.PathLike)):
        hint = f"; to use an image, open it: FileDisk({os.fspath(disk)!r})"
    raise TypeError(f"{what} takes a Disk, got {shown(disk)}{hint}")
