"""Requests that have to wait, and how they are carried out: in slices, by workers, or one by one.

A hand-over to a worker costs more than a small request does, so a worker is given several to do
one after the other; but not all there are, for then nothing would overlap.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from .._protocol.buffers import new_buffer
from .._protocol.transmission import (
    CHUNK_SIZE,
    REPLY_SIZE,
    error_of,
    pack_data_head_into,
    pack_error_into,
    pack_reply_into,
)
from .._protocol.wire import SIMPLE_REPLY_OK, Command, CommandFlag, Error
from .faults import pass_on_interrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...block._disk import Buffer, Disk, Operations
    from .ranges import Claim, Ranges

    T = TypeVar("T")

SLICES = 4  # at most so many workers for what one connection has sent at once; more only take turns
_LARGE = 256 << 10  # bytes
SLICE_BYTES = 1 << 20  # a slice with this much data is large enough


CARRIES = frozenset({Command.READ, Command.WRITE})  # data, in the reply or with the request
_CHANGES = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES})


@dataclass(slots=True, eq=False)
class SlowRequest:
    """A request that was found to be in order, and its payload."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: Buffer = b""
    structured: bool = False  # the client has agreed on structured replies
    # Its claim on the range that it changes. Taken out by the thread that releases it.
    claim: Claim | None = field(default=None, repr=False)

    @property
    def changes(self) -> bool:
        """Whether it changes a range of the disk, which is then to be claimed."""
        return self.command in _CHANGES and self.length > 0

    @property
    def chunk(self) -> bool:
        """Whether its reply has to be structured."""
        return self.structured and self.command == Command.READ

    @property
    def head_size(self) -> int:
        """Bytes of its reply before the data, or in all."""
        return CHUNK_SIZE if self.chunk else REPLY_SIZE

    @property
    def carries(self) -> int:
        """Bytes of data that it brings or its reply carries."""
        return self.length if self.command in CARRIES else 0

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
        "failures",
        "requests",
        "room_read",
        "room_written",
    )

    def __init__(self, requests: Sequence[SlowRequest]) -> None:
        # What the requests were charged for: data that the replies may carry, and payloads.
        self.room_read = sum(request.reads for request in requests)
        self.room_written = sum(request.carries for request in requests) - self.room_read
        room = sum(request.head_size for request in requests) + self.room_read
        # A bytearray is cleared as it is made, which takes milliseconds for a large one.
        self._memory = new_buffer(room) if room > _LARGE else memoryview(bytearray(room))
        self._end = 0
        self.requests = len(requests)
        self.bytes_read = self.bytes_written = self.errors = 0
        # What the disk has raised, and at which command; each is one of `errors`.
        self.failures: list[tuple[BaseException, int]] = []

    @property
    def data(self) -> memoryview:
        """The bytes to send."""
        return self._memory[: self._end]

    def room(self, request: SlowRequest) -> memoryview:
        """Where the data of the next reply goes."""
        start = self._end + request.head_size
        return self._memory[start : start + request.reads]

    def add(self, request: SlowRequest, failure: BaseException | None = None) -> None:
        """The next reply: success, whose data is in its room, or the disk's failure."""
        if failure is not None:
            self.failures.append((failure, request.command))
            self.refuse(request, error_of(failure))
            return
        at, memory = self._end, self._memory
        if request.chunk:
            self._end = pack_data_head_into(
                memory, at, request.cookie, request.offset, request.length
            )
        else:
            pack_reply_into(memory, at, SIMPLE_REPLY_OK, request.cookie)
            self._end += REPLY_SIZE + request.reads
        self.bytes_read += request.reads
        if request.command == Command.WRITE:
            self.bytes_written += request.length

    def refuse(self, request: SlowRequest, error: Error) -> None:
        """The next reply: an error, which has no data."""
        self.errors += 1
        self._end = pack_error_into(
            self._memory, self._end, error, request.cookie, chunk=request.chunk
        )


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


class Slice:
    """Requests that are carried out one after the other, and their claims on ranges.

    It is run once or dropped; if both are tried at once, by a worker and by a home that gives it
    up, the first to pop the token wins. A claim is released when its request has ended: by the
    thread that carries it out, for that goes on when the home has given it up.
    """

    __slots__ = ("_ranges", "_token", "answered", "requests")

    def __init__(self, requests: Sequence[SlowRequest], ranges: Ranges) -> None:
        self.requests = requests
        self.answered = False  # home thread only
        self._ranges = ranges
        self._token = [True]  # a list's pop is atomic by its own lock, or the GIL

    def run(self, disk: Operations[None]) -> Replies:
        """Carry them out. Blocks; for a worker thread."""
        replies = Replies(self.requests)
        if not self._take():
            return replies
        for request in self.requests:
            failure: BaseException | None = None
            try:
                carry_out(disk, request, replies.room(request))
            except BaseException as error:  # noqa: BLE001  (whatever it is, the client gets a reply)
                failure = error
            self._release(request)
            replies.add(request, failure)
        return replies

    async def run_one(self, disk: Disk) -> Replies:
        """Carry out the only one, of a disk that is awaited."""
        (request,) = self.requests
        replies = Replies(self.requests)
        self._take()
        failure: BaseException | None = None
        try:
            await carry_out(disk, request, replies.room(request))
        except GeneratorExit:
            raise  # this coroutine is being closed; or the disk says so, and the task's end is told
        except BaseException as error:
            if _is_cancelled(error):
                raise
            failure = error
            pass_on_interrupt(error, asyncio.get_running_loop())
        finally:
            self._release(request)
        replies.add(request, failure)
        return replies

    def drop(self) -> None:
        """It will not be run, unless it is being run."""
        if self._take():
            for request in self.requests:
                self._release(request)

    def _take(self) -> bool:
        try:
            return self._token.pop()
        except IndexError:
            return False

    def _release(self, request: SlowRequest) -> None:
        claim, request.claim = request.claim, None
        if claim is not None:
            self._ranges.release(claim)


def _is_cancelled(error: BaseException) -> bool:
    """Whether it is this task that was cancelled, and not something inside the disk."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def all_failed(
    requests: Sequence[SlowRequest],
    failure: BaseException | None = None,
    *,
    error: Error = Error.EIO,
) -> Replies:
    """The replies to requests that could not be carried out: why, or else what to say."""
    replies = Replies(requests)
    for request in requests:
        if failure is not None:
            replies.add(request, failure)
        else:
            replies.refuse(request, error)
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
