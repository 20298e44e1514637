"""What a disk is to those who use it: attempts that never block, and operations to await.

A user first makes the attempt, in its home thread and without a coroutine; only when the disk says
that it would have to wait does the user await the operation. For data that is in memory, which is
most of it, nothing is handed from thread to thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, TypeVar

from .._workers.to_worker import to_worker
from ._errors import OutOfRange

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

Buffer = bytes | bytearray | memoryview
T_co = TypeVar("T_co", covariant=True)


class Operations(Protocol[T_co]):
    """What can be done to a disk. A call returns a coroutine, or blocks and returns None.

    Both kinds have the same arguments, so that whoever carries out requests is written once.
    """

    def read_into(self, offset: int, buffer: memoryview, /) -> T_co: ...
    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> T_co: ...
    def flush(self) -> T_co: ...
    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> T_co: ...
    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> T_co: ...


class Disk(ABC):
    """A fixed number of bytes that can be read and written anywhere.

    Offsets and lengths are in bytes and any alignment will do. A range must be inside the disk, or
    OutOfRange is raised; a disk that is `read_only` raises DiskReadOnly when it is to change. The
    attempts (`try_...`) leave both checks to their caller, who has made them once for all.
    """

    size: int  # bytes; never changes
    read_only: bool
    # What a flush or a FUA write has made stable is stable for all users of the disk, however many
    # connections they come by. True for whatever keeps no cache for each user.
    shared_cache: bool = False
    # There is no stable storage behind it: flush and FUA have nothing to do.
    volatile: bool = False
    preferred_block: int = 4096  # bytes; a power of two, at least 512

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
        """A hint: the range may be dropped; what it reads as afterwards is undefined.

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

    @abstractmethod
    def close(self) -> None:
        """Let go of what is behind it; later use raises DiskClosed. May be called again.

        Called from: any thread.
        """

    async def read(self, offset: int, length: int) -> bytearray:
        """The `length` bytes at `offset`. Raises OSError when the disk fails.

        Called from: task.
        """
        data = bytearray(length)
        await self.read_into(offset, memoryview(data))
        return data

    def check_range(self, offset: int, length: int) -> None:
        """Raise OutOfRange unless the range is inside the disk.

        Called from: any thread.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfRange(f"{length} bytes at {offset} are not inside {self!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlockingDisk(Disk):
    """A disk whose operations are calls that block; awaiting one runs it in a worker thread.

    A thread that may block, a worker with several requests at hand for instance, makes the calls
    itself: `disk.blocking.flush()`. They may run in many threads at once.
    """

    blocking: Operations[None]

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on, in a worker. Raises OSError when the disk fails.

        Called from: task.
        """
        await to_worker(self.blocking.read_into, offset, buffer)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`, in a worker; with `fua` it is on stable storage on return.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_worker(self.blocking.write, offset, data, fua=fua)

    async def flush(self) -> None:
        """Put on stable storage what was written before this call, in a worker.

        Raises OSError when that fails, and from then on.

        Called from: task.
        """
        await to_worker(self.blocking.flush)

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """A hint that the range may be dropped, taken up in a worker.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_worker(self.blocking.trim, offset, length, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes, in a worker; with `no_hole` storage is set aside.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_worker(self.blocking.write_zeroes, offset, length, fua=fua, no_hole=no_hole)
