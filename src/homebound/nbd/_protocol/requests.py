"""The parser of requests, which leaves their payloads in the receive buffer.

Sans-I/O: the owner of the socket receives into `get_buffer`, calls `received` with the size, and
then takes all complete requests at once. A request is a plain tuple here, not an object, because
making an object would take a good part of the time to answer it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .buffers import new_buffer
from .errors import RemoteProtocolError
from .wire import MAX_PAYLOAD, PLAIN_READ, REQUEST, REQUEST_MAGIC, Command

if TYPE_CHECKING:
    from .._server.budget import Account
    from .buffers import BufferPool

# head, cookie, offset, length, and the position just after the request and its payload
Request = tuple[int, int, int, int, int]

_HEADER = REQUEST.size
_WRITE = int(Command.WRITE)
_unpack = REQUEST.unpack_from

# A payload above MAX_PAYLOAD is refused. Up to MAX_SKIP it is skipped and the client gets an error
# reply ("Size constraints": error or disconnect); beyond, the server disconnects.
MAX_SKIP = 2 * MAX_PAYLOAD
ALLOWANCE = 256 << 10  # bytes of payload that a connection may hold without reserving them
# Bytes received at a time: with a fast client, one system call would receive all of a large payload
# while the home's other connections wait.
RECEIVE_MAX = 1 << 20
# A window whose free part is at most this fraction of it counts as full. An incomplete request of
# at most that size is kept in memory of its own, so that a client that stops in the middle of one
# does not hold a large buffer.
_FRACTION = 64
_NO_WINDOW = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Rest:
    """The received bytes of a stream whose requests are not consumed."""

    data: bytes
    big: memoryview | None
    filled: int
    head: tuple[int, int, int, int]
    skip: int
    reserved: int


class RequestStream:
    """The requests of one client, through a window on its byte stream.

    Home thread only; `pool` is that thread's. The memory for a payload is reserved from `account`
    before the payload is received.
    """

    __slots__ = (
        "_account",
        "_big",
        "_big_filled",
        "_big_head",
        "_carry",
        "_little",
        "_pool",
        "_refused",
        "_skip",
        "_stalled_size",
        "_start",
        "_stop",
        "_window",
        "reserved",
    )

    def __init__(self, pool: BufferPool, account: Account) -> None:
        self._pool = pool
        self._account = account
        # Reserved for the payload being received, then for the first request that `peek` returns.
        # A caller that keeps that payload takes over the reservation by setting this to 0.
        self.reserved = 0
        self._stalled_size = 0  # held for the window's data while the connection is stalled
        self._little = pool.size // _FRACTION
        # A pool's buffer while it holds data; [_start, _stop) has not been consumed.
        self._window = _NO_WINDOW
        self._start = self._stop = 0
        # An incomplete request, kept here while there is no window.
        self._carry = b""
        # The payload of a WRITE that is too large for the window, its filled size, its header.
        self._big: memoryview | None = None
        self._big_filled = 0
        self._big_head = (0, 0, 0, 0)
        # Bytes of a refused payload: `_refused` of a request that `peek` has returned, `_skip` yet
        # to be skipped before the next request. At most one of them is not 0.
        self._refused = self._skip = 0

    def get_buffer(self) -> memoryview:
        """Return memory for the next bytes; not to be called after `settle` returned True."""
        if self._big is not None:
            return self._big[self._big_filled : self._big_filled + RECEIVE_MAX]
        window = self._window
        if window is _NO_WINDOW:
            window = self._open()
        return window[self._stop : self._stop + RECEIVE_MAX]

    def put(self, data: bytes) -> None:
        """Take bytes that were received elsewhere, at most as many as fit into a buffer."""
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer()
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            self.received(len(part))
            rest = rest[len(part) :]

    def received(self, size: int) -> None:
        """Take `size` bytes that were received into `get_buffer`'s memory."""
        if self._big is not None:
            self._big_filled += size
        else:
            self._stop += size

    @property
    def empty(self) -> bool:
        """True if all is consumed, except perhaps the start of an incomplete request."""
        return self._start == self._stop and self._big is None

    def peek(self, limit: int) -> list[Request]:
        """Return complete requests in order, at most `limit`; they stay until `consume`.

        Raises RemoteProtocolError if the next bytes are not a request.
        """
        if self._big is not None:
            return self._peek_big()
        if self._skip:
            self._pass_over()
        window = self._window
        found: list[Request] = []
        position, stop = self._start, self._stop
        while position + _HEADER <= stop and limit:
            head, cookie, offset, length = _unpack(window, position)
            position += _HEADER
            if head != PLAIN_READ:
                if head >> 32 != REQUEST_MAGIC:
                    self._refuse(found, f"a request began with {head >> 32:#010x}")
                    break
                if head & 0xFFFF == _WRITE:
                    if length > MAX_PAYLOAD:
                        if not found:
                            self._refuse_payload(length)
                            found.append((head, cookie, offset, length, position))
                        break
                    position += length
                    if position > stop:
                        break
            found.append((head, cookie, offset, length, position))
            limit -= 1
        return found

    def payload(self, length: int, end: int) -> memoryview:
        """Return the payload of a request from the last `peek`; valid until it is consumed."""
        if self._big is not None:
            return self._big[:length]
        return self._window[end - length : end]

    def keep_payload(self, length: int, end: int) -> memoryview | bytes:
        """Return the payload in memory that stays valid after `consume`."""
        if self._big is not None:
            return memoryview(self._big.obj)  # a worker's own: see MemoryDisk on sharing a view
        return bytes(self.payload(length, end))

    def consume(self, end: int) -> None:
        """Drop everything up to `end`, the position after a request."""
        if self._big is not None:
            self._big = None
        else:
            self._start = end
            self._skip, self._refused = self._refused, 0
        if self.reserved:
            self._account.give_back(self.reserved)
            self.reserved = 0

    def settle(self, *, stalled: bool) -> bool:
        """Make room after consuming, and give back unneeded memory.

        `stalled`: complete requests may be left. Returns True if no more may be received for now,
        because there is no room.
        """
        window = self._window
        left = self._stop - self._start
        self._hold(left if stalled and left > self._little else 0)
        if window is _NO_WINDOW:
            return self._big is not None and self._big_filled == len(self._big)
        if not left:
            self._close(window)
        elif stalled:
            tight = left > self._little and self._account.budget.tight
            return tight or len(window) - self._stop <= self._little
        else:
            return not self._make_room(window, left)
        return False

    def pack(self) -> Rest:
        """Take out what is not consumed, for another stream; this one is not used any more."""
        data = self._carry or bytes(self._window[self._start : self._stop])
        rest = Rest(data, self._big, self._big_filled, self._big_head, self._skip, self.reserved)
        self.release()
        return rest

    def unpack(self, rest: Rest) -> None:
        """Go on with what another stream has received."""
        self._carry = b""
        self._big, self._big_filled, self._big_head = rest.big, rest.filled, rest.head
        self._skip, self.reserved = rest.skip, rest.reserved
        self._account.force(rest.reserved)
        if rest.data:
            window = self._open()
            window[: len(rest.data)] = rest.data
            self._stop = len(rest.data)

    def release(self) -> None:
        """Drop all data and reservations; the connection is lost."""
        if self._window is not _NO_WINDOW:
            self._close(self._window)
        self._big = None
        self._carry = b""
        self._hold(0)
        self._account.give_back(self.reserved)
        self.reserved = 0

    def _hold(self, size: int) -> None:
        more, self._stalled_size = size - self._stalled_size, size
        if more > 0:
            self._account.force(more)
        elif more:
            self._account.give_back(-more)

    def _open(self) -> memoryview:
        window = self._window = self._pool.take()
        self._start, self._stop = 0, len(self._carry)
        if self._carry:
            window[: self._stop] = self._carry
            self._carry = b""
        return window

    def _close(self, window: memoryview) -> None:
        self._window = _NO_WINDOW
        self._start = self._stop = 0
        self._pool.give_back(window)

    def _make_room(self, window: memoryview, left: int) -> bool:
        """Make room for the rest of the incomplete request in the window.

        Returns False if it has to wait for the account.
        """
        needed = _HEADER
        if left >= _HEADER:
            head, cookie, offset, length = _unpack(window, self._start)
            needed += length  # only a WRITE can be incomplete with a complete header
            if length > ALLOWANCE and not self.reserved:
                if not self._account.take(length):
                    return False
                self.reserved = length
            if needed > len(window):
                self._big_head = (head, cookie, offset, length)
                self._big = new_buffer(length)
                self._big_filled = left - _HEADER
                self._big[: self._big_filled] = window[self._start + _HEADER : self._stop]
                self._close(window)
                return True
        if left <= self._little:
            self._carry = bytes(window[self._start : self._stop])
            self._close(window)
        elif self._start + needed > len(window):
            window[:left] = window[self._start : self._stop]
            self._start, self._stop = 0, left
        return True

    def _peek_big(self) -> list[Request]:
        assert self._big is not None
        if self._big_filled < len(self._big):
            return []
        return [(*self._big_head, 0)]

    def _refuse_payload(self, length: int) -> None:
        """Prepare to skip a payload above the maximum: its WRITE is returned alone, without it."""
        if length > MAX_SKIP:
            raise RemoteProtocolError(f"a WRITE announced {length} bytes of payload")
        self._refused = length

    def _pass_over(self) -> None:
        passed = min(self._skip, self._stop - self._start)
        self._skip -= passed
        self._start += passed

    @staticmethod
    def _refuse(found: list[Request], reason: str) -> None:
        if not found:  # the requests before it are served first
            raise RemoteProtocolError(reason)
