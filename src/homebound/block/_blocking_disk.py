"""A disk whose operations are calls that block, which a worker makes for a task that awaits one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ._disk import Buffer, Disk
from ._to_end import to_end

if TYPE_CHECKING:
    from ._operations import Operations


class BlockingDisk(Disk):
    """A disk whose operations are calls that block; awaiting one runs it in a worker thread.

    A thread that may block, a worker with several requests at hand for instance, makes the calls
    itself: `disk.blocking.flush()`. They may run in many threads at once. An operation that is
    cancelled while its call runs waits for the end of the call, which has the buffer, and then
    raises CancelledError.
    """

    blocking: Operations[None]

    @property
    def slices(self) -> int:
        """The number of workers that share the requests a client has sent together.

        Called from: any thread.
        """
        return 4

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on, in a worker. Raises OSError when the disk fails.

        Called from: task.
        """
        await to_end(partial(self.blocking.read_into, offset, buffer))

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`, in a worker; with `fua` it is on stable storage on return.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_end(partial(self.blocking.write, offset, data, fua=fua))

    async def flush(self) -> None:
        """Put on stable storage what was written before this call, in a worker.

        Raises OSError when that fails, and from then on.

        Called from: task.
        """
        await to_end(self.blocking.flush)

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give a hint that the range may be dropped, taken up in a worker.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_end(partial(self.blocking.trim, offset, length, fua=fua))

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes, in a worker; with `no_hole` storage is set aside.

        Raises OSError when the disk fails or is read-only.

        Called from: task.
        """
        await to_end(partial(self.blocking.write_zeroes, offset, length, fua=fua, no_hole=no_hole))
