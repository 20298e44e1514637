"""Requests that have to wait, carried out in slices by workers, or one by one in tasks.

Passing a request to a worker costs more than a small request does, so a worker gets several, to
carry out one after the other; but not all, so that some of them overlap.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from .._protocol.buffers import new_buffer
from .._protocol.transmission import (
    CHUNK_SIZE,
    HOLE_SIZE,
    REPLY_SIZE,
    error_of,
    pack_data_head_into,
    pack_done_into,
    pack_error_at_into,
    pack_error_into,
    pack_hole_into,
    pack_part_head_into,
    pack_reply_into,
    pack_status_into,
    status_room,
)
from .._protocol.wire import SIMPLE_REPLY_OK, Command, CommandFlag, Error
from .extents import GRAIN, read_parts, status_of
from .faults import pass_on_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ...block._disk import Buffer, Disk, Operations
    from .ranges import Claim, Ranges

    T = TypeVar("T")

SLICES = 4  # of the requests that one connection sends at once, unless the disk says otherwise
_LARGE = 256 << 10  # bytes
SLICE_BYTES = 1 << 20  # no request is added to a slice with this much data


# Plain numbers: each member that is looked up in an enumeration takes as long as a call.
_READ, _WRITE = int(Command.READ), int(Command.WRITE)
_WRITE_ZEROES, _BLOCK_STATUS = int(Command.WRITE_ZEROES), int(Command.BLOCK_STATUS)
_FUA, _DF = int(CommandFlag.FUA), int(CommandFlag.DF)
_FAST_ZERO = int(CommandFlag.FAST_ZERO)

CARRIES = frozenset({_READ, _WRITE})  # data, with the request or in the reply
_CHANGES = frozenset({_WRITE, int(Command.TRIM), _WRITE_ZEROES})
_AWAITED = frozenset({_BLOCK_STATUS, int(Command.CACHE)})
ASKS = frozenset({_READ, *_AWAITED})  # for the client only: nothing is changed
# A READ of at least this many bytes may leave zeroes out.
PARTS_FROM = 2 << 20


def room_for(command: int, length: int) -> int:
    """Return the size of the data with a request or in its reply, in bytes, at most."""
    if command in CARRIES:
        return length
    return status_room(length) if command == _BLOCK_STATUS else 0


class SlowRequest:
    """A valid request, and its payload; and what it takes, which is asked for more than once."""

    __slots__ = (
        "awaited",
        "carries",
        "changes",
        "chunk",
        "claim",
        "command",
        "cookie",
        "failing_at",
        "flags",
        "head_size",
        "in_parts",
        "length",
        "offset",
        "payload",
        "reads",
    )

    def __init__(  # noqa: PLR0913, PLR0917  (the fields of a request on the wire)
        self,
        command: int,
        flags: int,
        cookie: int,
        offset: int,
        length: int,
        payload: Buffer = b"",
        *,
        structured: bool = False,  # structured replies are negotiated
    ) -> None:
        self.command = command
        self.flags = flags
        self.cookie = cookie
        self.offset = offset
        self.length = length
        self.payload = payload
        # Its claim on the range that it changes. The thread that releases the claim clears it.
        self.claim: Claim | None = None
        self.failing_at: int | None = None  # of a READ in parts: the offset of the part being read
        read = command == _READ
        # It is a READ whose reply must be structured; which may leave zeroes out of its data.
        self.chunk = structured and read
        self.in_parts = self.chunk and length >= PARTS_FROM and not flags & _DF
        # The size of its reply without the data, or of an error, in bytes, at most.
        in_chunk = self.chunk or command == _BLOCK_STATUS
        self.head_size = CHUNK_SIZE if in_chunk else REPLY_SIZE
        if read:
            self.changes = False
            # The size of the data with the request or in its reply; and of that in its reply.
            self.carries = self.reads = length
            self.awaited = self.in_parts
            if self.in_parts:
                self.head_size = HOLE_SIZE * (2 * (length // GRAIN) + 3)
            return
        # It changes a range of the disk, which must be claimed.
        self.changes = command in _CHANGES and length > 0
        self.carries = room_for(command, length)
        self.reads = 0 if command == _WRITE else self.carries
        # It takes operations that only the disk itself has, not its blocking calls.
        fast = command == _WRITE_ZEROES and flags & _FAST_ZERO
        self.awaited = bool(fast) or command in _AWAITED


class SlowRead(SlowRequest):
    """A READ whose data is one piece. Most requests are, so it has as little to set as possible."""

    __slots__ = ()

    command = _READ
    payload = b""
    failing_at = None
    in_parts = awaited = changes = False

    def __init__(self, flags: int, cookie: int, offset: int, length: int, chunk: bool) -> None:  # noqa: FBT001
        self.flags = flags
        self.cookie = cookie
        self.offset = offset
        self.length = self.carries = self.reads = length
        self.chunk = chunk
        self.head_size = CHUNK_SIZE if chunk else REPLY_SIZE
        self.claim = None


class Replies:
    """The replies to some requests, in one buffer, and their totals."""

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

    def __init__(self, requests: Sequence[SlowRequest], *, data: bool = True) -> None:
        """Make room for the replies; without `data`, for error replies only."""
        # The charges of the requests: for data in the replies, and for payloads.
        reads = carries = heads = 0
        for request in requests:
            reads += request.reads
            carries += request.carries
            heads += request.head_size
        self.room_read = reads
        self.room_written = carries - reads
        room = heads + reads if data else heads
        # A new bytearray is zeroed, which takes milliseconds for a large one.
        self._memory = new_buffer(room) if room > _LARGE else memoryview(bytearray(room))
        self._end = 0
        self.requests = len(requests)
        self.bytes_read = self.bytes_written = self.errors = 0
        # The exceptions of the disk, and their commands; `errors` counts them too.
        self.failures: list[tuple[BaseException, int]] = []

    @property
    def data(self) -> memoryview:
        """The bytes to send."""
        return self._memory[: self._end]

    def room(self, request: SlowRequest) -> memoryview:
        """Return the memory for the data of the next reply."""
        start = self._end + (CHUNK_SIZE if request.chunk else REPLY_SIZE)
        return self._memory[start : start + request.reads]

    def part(self, length: int) -> memoryview:
        """Return the memory for the next part of a READ."""
        start = self._end + CHUNK_SIZE
        return self._memory[start : start + length]

    def add_part(self, request: SlowRequest, offset: int, length: int) -> None:
        """Add a chunk with the data that `part` was filled with."""
        at = pack_part_head_into(self._memory, self._end, request.cookie, offset, length)
        self._end = at + length
        self.bytes_read += length

    def add_hole(self, request: SlowRequest, offset: int, length: int) -> None:
        """Add a chunk for zeroes."""
        self._end = pack_hole_into(self._memory, self._end, request.cookie, offset, length)
        self.bytes_read += length

    def add_done(self, request: SlowRequest) -> None:
        """End a reply in parts."""
        self._end = pack_done_into(self._memory, self._end, request.cookie)

    def add_status(self, request: SlowRequest, extents: Sequence[tuple[int, int]]) -> None:
        """Add a reply with lengths and states."""
        self._end = pack_status_into(self._memory, self._end, request.cookie, extents)

    def add_read(
        self, request: SlowRequest, read_into: Callable[[int, memoryview], object]
    ) -> None:
        """Have the data of a READ put into its place, and add the reply; or raise what that does.

        One call in place of `room`, the operation and `add`: a worker makes it for most requests.
        """
        at, memory, length = self._end, self._memory, request.length
        start = at + request.head_size
        read_into(request.offset, memory[start : start + length])
        if request.chunk:
            self._end = pack_data_head_into(memory, at, request.cookie, request.offset, length)
        else:
            pack_reply_into(memory, at, SIMPLE_REPLY_OK, request.cookie)
            self._end = start + length
        self.bytes_read += length

    def add(self, request: SlowRequest, failure: BaseException | None = None) -> None:
        """Add a reply: success, with the data that `room` was filled with, or a failure."""
        if failure is not None:
            self.failures.append((failure, request.command))
            fast_zero = bool(request.flags & _FAST_ZERO)
            self.refuse(request, error_of(failure, fast_zero=fast_zero))
            return
        at, memory = self._end, self._memory
        if request.chunk:
            self._end = pack_data_head_into(
                memory, at, request.cookie, request.offset, request.length
            )
        else:
            pack_reply_into(memory, at, SIMPLE_REPLY_OK, request.cookie)
            self._end += REPLY_SIZE + request.reads
        if request.command == _WRITE:
            self.bytes_written += request.length
        else:
            self.bytes_read += request.reads

    def refuse(self, request: SlowRequest, error: Error) -> None:
        """Add an error reply, which has no data."""
        self.errors += 1
        memory, at, cookie = self._memory, self._end, request.cookie
        if request.failing_at is not None:
            self._end = pack_error_at_into(memory, at, error, cookie, request.failing_at)
        else:
            chunk = request.chunk or request.command == _BLOCK_STATUS
            self._end = pack_error_into(memory, at, error, cookie, chunk=chunk)


def batches(replies: Sequence[Replies]) -> Iterator[Replies]:
    """Join small replies, each in memory of its own, so that they are sent together."""
    together: list[Replies] = []
    size = 0
    for each in replies:
        if together and size + len(each.data) > _LARGE:
            yield _joined(together)
            together, size = [], 0
        together.append(each)
        size += len(each.data)
    if together:
        yield _joined(together)


def _joined(replies: list[Replies]) -> Replies:
    if len(replies) == 1:
        return replies[0]
    joined = Replies(())
    data = b"".join([each.data for each in replies])
    joined._memory, joined._end = memoryview(data), len(data)
    for each in replies:
        joined.room_read += each.room_read
        joined.room_written += each.room_written
        joined.requests += each.requests
        joined.bytes_read += each.bytes_read
        joined.bytes_written += each.bytes_written
        joined.errors += each.errors
        joined.failures += each.failures
    return joined


def split(requests: Sequence[SlowRequest], number: int = SLICES) -> list[list[SlowRequest]]:
    """Divide requests that came together into about `number` slices, in order.

    A request that waits for stable storage gets a slice of its own, so that no other waits for it,
    and so does one that is awaited.
    """
    share = -(-len(requests) // number)
    slices: list[list[SlowRequest]] = []
    filled = SLICE_BYTES  # bytes in the last slice; full, so that the first request begins one
    for request in requests:
        alone = request.flags & _FUA or request.awaited
        if alone or request.command not in CARRIES:
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

    It is run once or dropped. If a worker runs it while its home drops it, the first to pop the
    token wins. A claim is released when its request has ended, by the thread that carries it out,
    which goes on when the home no longer waits.
    """

    __slots__ = ("_ranges", "_token", "awaited", "handled", "requests", "unheard")

    def __init__(self, requests: Sequence[SlowRequest], ranges: Ranges) -> None:
        self.requests = requests
        self.awaited = requests[0].awaited  # then it is the only request
        # Its task has nothing left to do: it is answered, or a worker has it. Home thread only.
        self.handled = False
        # The client has gone. Written by the home thread, for a worker that looks at it when it
        # goes on with the next request.
        self.unheard = False
        self._ranges = ranges
        self._token = [True]  # a list's pop is atomic by its own lock, or the GIL

    def run(self, disk: Operations[None]) -> Replies:
        """Carry out the requests. Blocks; for a worker thread."""
        replies = Replies(self.requests)
        if not self._take():
            return replies
        read_into = disk.read_into
        for request in self.requests:
            failure: BaseException | None = None
            try:
                if request.command == _READ:  # it has no claim
                    if self.unheard:
                        replies.refuse(request, Error.ESHUTDOWN)
                    else:
                        replies.add_read(request, read_into)
                    continue
                carry_out(disk, request, replies.room(request))
            except BaseException as error:  # noqa: BLE001  (each request gets a reply)
                failure = error
            self._release(request)
            replies.add(request, failure)
        return replies

    async def run_one(self, disk: Disk) -> Replies:
        """Carry out the only request, on a disk with awaited operations."""
        (request,) = self.requests
        replies = Replies(self.requests)
        self._take()
        failure: BaseException | None = None
        try:
            if request.command in CARRIES and not request.awaited:
                await carry_out(disk, request, replies.room(request))
                replies.add(request)
            else:
                await _answer(disk, request, replies)
        except GeneratorExit:
            raise  # this coroutine is being closed; or the disk raised it, which ends the task
        except BaseException as error:
            if _is_cancelled(error):
                raise
            failure = error
            pass_on_interrupt(error, asyncio.get_running_loop())
        finally:
            self._release(request)
        if failure is not None:
            replies.add(request, failure)
        return replies

    def drop(self) -> None:
        """Release the claims, unless the slice has been run or is being run."""
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


async def _answer(disk: Disk, request: SlowRequest, replies: Replies) -> None:
    """Carry out a request with awaited operations, and add its reply."""
    offset, length = request.offset, request.length
    if request.command == Command.BLOCK_STATUS:
        replies.add_status(request, await status_of(disk, request))
        return
    if request.in_parts:
        await read_parts(disk, request, replies)
        return
    if request.command == Command.CACHE:
        await disk.cache(offset, length)
    elif request.command == _WRITE_ZEROES and request.flags & _FAST_ZERO:
        fua = bool(request.flags & _FUA)
        no_hole = bool(request.flags & CommandFlag.NO_HOLE)
        await disk.fast_zeroes(offset, length, fua=fua, no_hole=no_hole)
    else:
        await carry_out(disk, request, replies.room(request))
    replies.add(request)


def _is_cancelled(error: BaseException) -> bool:
    """Return whether this task was cancelled, rather than something inside the disk."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def all_failed(
    requests: Sequence[SlowRequest],
    failure: BaseException | None = None,
    *,
    error: Error = Error.EIO,
) -> Replies:
    """Make the replies to requests that were not carried out: for `failure`, or else `error`."""
    replies = Replies(requests, data=False)  # there may be no memory for that
    for request in requests:
        if failure is not None:
            replies.add(request, failure)
        else:
            replies.refuse(request, error)
    return replies


def carry_out(disk: Operations[T], request: SlowRequest, data: memoryview) -> T:
    """Call the operation of the disk for a request; a READ fills `data`."""
    command, offset, length = request.command, request.offset, request.length
    if command == _READ:
        return disk.read_into(offset, data)
    fua = bool(request.flags & _FUA)
    if command == _WRITE:
        return disk.write(offset, request.payload, fua=fua)
    match command:
        case Command.FLUSH:
            return disk.flush()
        case Command.TRIM:
            return disk.trim(offset, length, fua=fua)
        case Command.WRITE_ZEROES:
            no_hole = bool(request.flags & CommandFlag.NO_HOLE)
            return disk.write_zeroes(offset, length, fua=fua, no_hole=no_hole)
    raise ValueError(f"{command} is no command that is carried out here")
