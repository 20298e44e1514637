"""Requests that have to wait, and how they are carried out: in slices, by workers, or one by one.

A hand-over to a worker costs more than a small request does, so a worker is given several to do
one after the other; but not all there are, for then nothing would overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .._protocol.buffers import new_buffer
from .._protocol.transmission import REPLY_SIZE, error_of, pack_reply_into
from .._protocol.wire import SIMPLE_REPLY_OK, Command, CommandFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...block._disk import Buffer, Disk, Operations

    T = TypeVar("T")

SLICES = 4  # at most so many workers for what one connection has sent at once; more only take turns
_LARGE = 256 << 10  # bytes
SLICE_BYTES = 1 << 20  # a slice with this much data is large enough


@dataclass(slots=True)
class SlowRequest:
    """A request that was found to be in order, and its payload."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: Buffer = b""

    @property
    def carries(self) -> int:
        """Bytes of data that it brings or its reply carries."""
        return self.length if self.command in (Command.READ, Command.WRITE) else 0

    @property
    def reads(self) -> int:
        """Bytes of data that its reply carries."""
        return self.length if self.command == Command.READ else 0


class Replies:
    """The replies to some requests, in one piece of memory, and what they amount to."""

    __slots__ = (
        "_end",
        "_memory",
        "bytes_read",
        "bytes_written",
        "errors",
        "requests",
        "unexpected",
    )

    def __init__(self, requests: Sequence[SlowRequest]) -> None:
        room = sum(REPLY_SIZE + request.reads for request in requests)
        # A bytearray is cleared as it is made, which takes milliseconds for a large one.
        self._memory = new_buffer(room) if room > _LARGE else memoryview(bytearray(room))
        self._end = 0
        self.requests = len(requests)
        self.bytes_read = self.bytes_written = self.errors = 0
        # What no disk should raise; the last one, to be reported.
        self.unexpected: Exception | None = None

    @property
    def data(self) -> memoryview:
        """The bytes to send."""
        return self._memory[: self._end]

    def room(self, request: SlowRequest) -> memoryview:
        """Where the data of the next reply goes."""
        start = self._end + REPLY_SIZE
        return self._memory[start : start + request.reads]

    def add(self, request: SlowRequest, failure: Exception | None = None) -> None:
        """The next reply: success, whose data is in its room, or a failure, which has none."""
        error = SIMPLE_REPLY_OK
        start = self._end
        self._end += REPLY_SIZE
        if failure is not None:
            self.errors += 1
            error |= error_of(failure)
            if not isinstance(failure, OSError):
                self.unexpected = failure
        else:
            self._end += request.reads
            self.bytes_read += request.reads
            if request.command == Command.WRITE:
                self.bytes_written += request.length
        pack_reply_into(self._memory, start, error, request.cookie)


def split(requests: Sequence[SlowRequest]) -> list[list[SlowRequest]]:
    """Deal requests out into slices, in order.

    What waits for stable storage gets a slice of its own: nobody should wait along with it.
    """
    share = -(-len(requests) // SLICES)
    slices: list[list[SlowRequest]] = []
    filled = SLICE_BYTES  # of the last slice; full, so that the first request begins one
    for request in requests:
        if request.flags & CommandFlag.FUA or request.command not in (Command.READ, Command.WRITE):
            slices.append([request])
            filled = SLICE_BYTES
            continue
        if filled >= SLICE_BYTES or len(slices[-1]) >= share:
            slices.append([])
            filled = 0
        slices[-1].append(request)
        filled += request.length
    return slices


def run_slice(disk: Operations[None], requests: Sequence[SlowRequest]) -> Replies:
    """Carry out requests one after the other. Blocks; for a worker thread."""
    replies = Replies(requests)
    for request in requests:
        try:
            carry_out(disk, request, replies.room(request))
        except Exception as failure:  # noqa: BLE001  (whatever it is, the client gets a reply)
            replies.add(request, failure)
        else:
            replies.add(request)
    return replies


async def run_one(disk: Disk, request: SlowRequest) -> Replies:
    """Carry out one request of a disk that is awaited."""
    replies = Replies([request])
    try:
        await carry_out(disk, request, replies.room(request))
    except Exception as failure:  # noqa: BLE001  (whatever it is, the client gets a reply)
        replies.add(request, failure)
    else:
        replies.add(request)
    return replies


def all_failed(requests: Sequence[SlowRequest], failure: Exception) -> Replies:
    """The replies to requests that could not be carried out at all."""
    replies = Replies(requests)
    for request in requests:
        replies.add(request, failure)
    return replies


def carry_out(disk: Operations[T], request: SlowRequest, data: memoryview) -> T:
    """Make the call that the request stands for; what it reads goes to `data`."""
    offset, length = request.offset, request.length
    fua = bool(request.flags & CommandFlag.FUA)
    match request.command:
        case Command.READ:
            return disk.read_into(offset, data)
        case Command.WRITE:
            return disk.write(offset, request.payload, fua=fua)
        case Command.FLUSH:
            return disk.flush()
        case Command.TRIM:
            return disk.trim(offset, length, fua=fua)
        case _:
            no_hole = bool(request.flags & CommandFlag.NO_HOLE)
            return disk.write_zeroes(offset, length, fua=fua, no_hole=no_hole)
