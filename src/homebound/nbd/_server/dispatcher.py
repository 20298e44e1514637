"""Requests of one connection to the disk: answered at once, or begun.

A request that the disk can complete at once is answered in the callback that received it, and all
such replies go out with one write: without a coroutine, an object or another thread. The others
become SlowRequests, for a task or a worker.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ...block._disk import Disk
from .._protocol.errors import RemoteProtocolError
from .._protocol.requests import ALLOWANCE
from .._protocol.transmission import (
    CHUNK_SIZE,
    REPLY_SIZE,
    error_of,
    pack_data_head_into,
    pack_error,
    pack_error_into,
    pack_reply_into,
    split_head,
    verdict,
)
from .._protocol.wire import (
    PLAIN_READ,
    PLAIN_WRITE,
    SIMPLE_REPLY_OK,
    Command,
    CommandFlag,
    Error,
)
from .extents import pack_hole_status_into
from .faults import pass_on_interrupt
from .outbox import INLINE_MAX, SEND_AT
from .slow import PARTS_FROM, SlowRead, SlowRequest, room_for

if TYPE_CHECKING:
    from .._protocol.requests import Request, RequestStream
    from .._protocol.transmission import Session
    from .budget import Account
    from .in_flight import InFlight
    from .lane import Lane
    from .outbox import Outbox
    from .served import Served

BATCH = 64  # requests that are parsed, and served, between two looks at the connection's state
# A turn is what is served before the home's other connections run: at most TURN requests,
# TURN_BYTES bytes or, after BATCH requests or their worth of bytes, the time that turns.py allows.
TURN = 256
TURN_BYTES = 8 << 20
# A request that waits for the disk takes several times as long as one that is answered at once, so
# it counts as WAITS of them; while others wait for a turn, a batch ends with as many as make it
# whole.
WAITS = 4
# Requests that are refused at the end of a connection; those behind them go unanswered. A client
# that floods has sent a hundred thousand, and with many such clients the home would refuse them for
# seconds while no request in flight is answered.
MAX_REFUSED = 1024

_WRITE, _FLUSH, _DISC = int(Command.WRITE), int(Command.FLUSH), int(Command.DISC)
_BLOCK_STATUS, _CACHE = int(Command.BLOCK_STATUS), int(Command.CACHE)


class Dispatcher:
    """Serves the requests of one connection, in batches. Home thread only."""

    def __init__(  # noqa: PLR0913  (the parts of one connection)
        self,
        lane: Lane,
        served: Served,
        session: Session,
        *,
        stream: RequestStream,
        outbox: Outbox,
        in_flight: InFlight,
        account: Account,
    ) -> None:
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._served = served
        self._stream = stream
        self._outbox = outbox
        self._in_flight = in_flight
        self._account = account
        self._disk = disk = served.disk
        self._size = session.size
        self._verdict = partial(verdict, session)
        # READs get structured replies; those of the hot loop have one chunk, with or without DF.
        self._structured = session.structured
        # For the hot path: the heads of READs and of a WRITE that may be carried out at once (-1:
        # none may), and the bits of a head that matter. FUA does not where there is no stable
        # storage.
        read = PLAIN_READ
        self._plain_reads = (read, read | CommandFlag.DF << 16 if session.structured else -1)
        # Those that the disk may carry out at once: none, if it never tries.
        tries = getattr(disk.try_read_into, "__func__", None) is not Disk.try_read_into
        self._tried_reads = self._plain_reads if tries else ()
        self._plain_write = -1 if session.read_only else PLAIN_WRITE
        self._head_mask = ~(CommandFlag.FUA << 16) if disk.volatile else -1
        # Serve no further request for now.
        self._halt = False
        self._waits = 0  # requests of this batch that wait for the disk
        # The next request waits for room in the account, which will call.
        self.short = False
        # The client has asked to disconnect.
        self.disconnecting = False

    def serve(self, batch: list[Request]) -> int:
        """Serve at least one request, in order until a limit; return the cost, of TURN."""
        self._halt = self.short = False
        self._waits = 0
        cost, rest = 0, batch
        taken = 0 if self._tried_reads else self._read_together(batch)
        if taken:
            *_, end = batch[taken - 1]
            self._stream.consume(end)
            cost, rest = self._count(taken, 0, 0), batch[taken:]
        if rest and not self._halt:
            cost += self._serve_each(rest)
        return cost + (WAITS - 1) * self._waits

    def _serve_each(self, batch: list[Request]) -> int:
        # This is the hot loop, so it keeps in local variables what it uses for each request.
        try_read, try_write = self._disk.try_read_into, self._disk.try_write
        size, mask = self._size, self._head_mask
        plain_reads, plain_write = self._plain_reads, self._plain_write
        tried_reads = self._tried_reads
        payload, outbox, structured = self._stream.payload, self._outbox, self._structured
        ranges = self._served.ranges
        claims = ranges.claims  # seldom any
        read_head = CHUNK_SIZE if structured else REPLY_SIZE
        inline_max = ALLOWANCE if self._account.budget.tight else INLINE_MAX
        out, at = outbox.open()
        brim = at + SEND_AT
        served = read = written = consumed = 0
        for request in batch:
            head, cookie, offset, length, end = request
            head &= mask
            data = at + read_head
            inline = length <= inline_max and offset + length <= size
            try:
                if inline and head in tried_reads and try_read(offset, out[data : data + length]):
                    if structured:
                        at = pack_data_head_into(out, at, cookie, offset, length)
                    else:
                        pack_reply_into(out, at, SIMPLE_REPLY_OK, cookie)
                        at = data + length
                    read += length
                elif (
                    inline
                    and head == plain_write
                    and not (claims and ranges.overlaps(offset, length))
                    and try_write(offset, payload(length, end))
                ):
                    pack_reply_into(out, at, SIMPLE_REPLY_OK, cookie)
                    at += REPLY_SIZE
                    written += length
                else:
                    whole = inline and head in plain_reads and length < PARTS_FROM
                    at = (self._read_later if whole else self._serve_other)(request, out, at)
                    if self.short:
                        break
            except BaseException as failure:  # noqa: BLE001  (each request gets a reply)
                at = self._fail(failure, request, out, at)
            served += 1
            consumed = end
            if at >= brim or self._halt:
                at = outbox.send(at)
                brim = at + SEND_AT
                if self._halt or outbox.full or read + written >= TURN_BYTES:
                    break
        outbox.send(at)
        if served:
            self._stream.consume(consumed)
        return self._count(served, read, written)

    def _count(self, served: int, read: int, written: int) -> int:
        """Add to the lane's counters; return the cost, of TURN."""
        lane = self._lane
        lane.requests += served
        lane.bytes_read += read
        lane.bytes_written += written
        return served + (read + written) * TURN // TURN_BYTES

    def _read_together(self, batch: list[Request]) -> int:
        """Begin the READs that a batch begins with, as far as there is room; return how many.

        For a disk that never carries one out at once: it saves three calls for each of them.
        """
        in_flight, account = self._in_flight, self._account
        plain_reads, mask = self._plain_reads, self._head_mask
        size, structured = self._size, self._structured
        room = ALLOWANCE - account.held
        reads: list[SlowRead] = []
        for head, cookie, offset, length, _ in batch[: in_flight.room]:
            plain = head & mask in plain_reads and length and offset + length <= size
            if not plain or length > room:
                break
            room -= length
            reads.append(SlowRead(head >> 16 & 0xFFFF, cookie, offset, length, structured))
        taken = ALLOWANCE - account.held - room
        if not reads or self._stream.reserved or not account.take(taken):
            return 0
        in_flight.add_reads(reads, taken)
        self._halt = in_flight.full
        return len(reads)

    def _read_later(self, request: Request, _out: memoryview, at: int) -> int:
        """Begin a READ that the hot loop found to be inside the disk, if there is room for it."""
        head, cookie, offset, length, _ = request
        if length:
            if not self._account.take(length - self._stream.reserved):
                self.short = True
                return at
            self._stream.reserved = 0
        in_flight = self._in_flight
        in_flight.add(SlowRead(head >> 16 & 0xFFFF, cookie, offset, length, self._structured))
        self._count_waiting()
        return at

    def _count_waiting(self) -> None:
        self._waits += 1
        crowded = self._lane.turns.wanted and self._waits * WAITS >= BATCH
        self._halt = self._in_flight.full or crowded

    def _serve_other(self, request: Request, out: memoryview, at: int) -> int:
        """Serve a request that the hot loop does not; return where to pack the next reply."""
        head, cookie, offset, length, end = request
        command, flags = split_head(head)
        if command == _DISC:
            self.disconnecting = self._halt = True
            return at
        error = self._verdict(head, offset, length)
        if error or self._has_nothing_to_do(command):
            self._lane.errors += error != Error.OK
            return pack_error_into(out, at, error, cookie, chunk=self._in_chunks(command))
        if command == _BLOCK_STATUS and self._disk.try_hole(offset, length):
            return pack_hole_status_into(out, at, cookie, length)
        data: memoryview | bytes = b""
        room = room_for(command, length)
        if room:
            if not self._account.take(room - self._stream.reserved):
                self.short = True
                return at
            self._stream.reserved = 0
            if command == _WRITE:
                data = self._stream.keep_payload(length, end)
        structured = self._structured
        self._in_flight.add(
            SlowRequest(command, flags, cookie, offset, length, data, structured=structured)
        )
        self._count_waiting()
        return at

    def _has_nothing_to_do(self, command: int) -> bool:
        if command == _FLUSH:
            return self._disk.try_flush()
        return command == _CACHE and self._disk.try_cache()

    def _fail(self, failure: BaseException, request: Request, out: memoryview, at: int) -> int:
        """Pack the reply to a request that failed at once; return where to pack the next one."""
        pass_on_interrupt(failure, self._loop)
        head, cookie, *_ = request
        command, _ = split_head(head)
        self.report(failure, command)
        self._lane.errors += 1
        error = error_of(failure)
        return pack_error_into(out, at, error, cookie, chunk=self._in_chunks(command))

    def _in_chunks(self, command: int) -> bool:
        """Return whether a reply to this command must be structured, even an error."""
        return self._structured and command in {Command.READ, Command.BLOCK_STATUS}

    def report(self, failure: BaseException, command: int) -> None:
        """Count and log a failure of the disk."""
        self._lane.disk_errors += 1
        self._served.faults.tell(failure, command, self._loop)

    def refuse_rest(self) -> None:
        """Refuse the received requests that will not be served, MAX_REFUSED at most."""
        stream, refused = self._stream, []
        try:
            for _ in range(0, MAX_REFUSED, BATCH):
                batch = stream.peek(BATCH)
                for head, cookie, *_, end in batch:
                    command, _ = split_head(head)
                    if command != Command.DISC:
                        chunk = self._in_chunks(command)
                        refused.append(pack_error(Error.ESHUTDOWN, cookie, chunk=chunk))
                    stream.consume(end)
        except RemoteProtocolError:
            pass  # the rest cannot be parsed
        if refused:
            self._outbox.write(b"".join(refused))
