"""The replies of a server, without I/O: says where the next bytes go, and which requests they end.

A payload is copied from the receive buffer to its request's target; the rest of a long one is
received there directly. What a server may do wrong raises RemoteProtocolError, and then the
connection is of no more use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chunks import ChunkRules
from .errors import RemoteProtocolError
from .wire import (
    CHUNK,
    CHUNK_ERROR,
    DATA_CHUNK,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    ChunkType,
    Command,
)

if TYPE_CHECKING:
    from .client_request import Request

RECEIVE = 128 << 10  # bytes of the receive buffer
DIRECT = 16 << 10  # the rest of a payload that is received into its target
_BEGINNING = 1024  # bytes of a payload that are copied, when they are likely to be many
_READ, _BLOCK_STATUS = int(Command.READ), int(Command.BLOCK_STATUS)
_SIMPLE = SIMPLE_REPLY.size
_CHUNK = CHUNK.size
_DATA = DATA_CHUNK.size
_DATA_HEAD = STRUCTURED_REPLY_MAGIC << 32 | ChunkType.OFFSET_DATA
_DONE = ChunkFlag.DONE << 16
_DATA_LAST = _DATA_HEAD | _DONE


class ReplyReader:
    """Reads the replies of one connection. `pending` has the requests that were sent, by cookie."""

    __slots__ = (
        "_buffer",
        "_current",
        "_end",
        "_last",
        "_left",
        "_long",
        "_rules",
        "_sink",
        "_start",
        "_structured",
        "_to",
        "_whole",
        "pending",
    )

    def __init__(
        self, contexts: dict[int, str], *, structured: bool, buffer_size: int = RECEIVE
    ) -> None:
        self.pending: dict[int, Request] = {}
        self._structured = structured
        self._rules = ChunkRules(contexts)
        self._whole = bytearray(buffer_size)
        self._buffer = memoryview(self._whole)
        self._start = self._end = 0  # what is in the buffer and was not read
        # A payload that is being received: its request, how many bytes of it are to come, where in
        # the target the next one goes, and whether it ends the reply. `_sink` collects what is no
        # data: extents.
        self._current: Request | None = None
        self._left = 0
        self._to = 0
        self._last = False
        self._sink: bytearray | None = None
        # The last payload was received directly. So the next one probably is: the less of it comes
        # with its header, the less is copied.
        self._long = False

    def get_buffer(self) -> memoryview:
        """Return the memory for the next bytes, which is never empty."""
        if self._start == self._end:
            self._start = self._end = 0
            current = self._current
            direct = self._left >= DIRECT or (self._left and self._long)
            if direct and current is not None and self._sink is None:
                target = current.target
                if target is not None:
                    self._long = True
                    return target[self._to : self._to + self._left]
            elif self._long:
                return self._buffer[:_BEGINNING]
        elif self._end == len(self._whole) or self._start > len(self._whole) // 2:
            rest = self._end - self._start
            self._whole[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        return self._buffer[self._end :]

    def received(self, buffer: memoryview, size: int) -> list[Request]:
        """Take `size` bytes that are in `buffer`, which get_buffer gave; return the ended requests.

        Raises RemoteProtocolError; the requests that ended before are still returned first, and
        the error with the next call.
        """
        ended: list[Request] = []
        if buffer.obj is not self._whole:
            self._to += size
            self._left -= size
            if not self._left:
                self._end_payload(ended)
            return ended
        self._end += size
        try:
            self._read(ended)
        except RemoteProtocolError as error:
            if not ended:
                raise
            self._rules.broken = error
        except BaseException:  # no memory, or a signal handler's: no request has ended
            self.pending.update((each.cookie, each) for each in ended)
            raise
        return ended

    @property
    def broken(self) -> RemoteProtocolError | None:
        """The violation that was found after the requests that `received` returned last."""
        return self._rules.broken

    @property
    def midway(self) -> bool:
        """True if much of a payload is to come, and is received into its target."""
        return self._left >= DIRECT

    def _read(self, ended: list[Request]) -> None:
        buffer = self._buffer
        while True:
            if self._left and not self._take_payload(ended):
                return
            if self._structured:
                self._take_whole(ended)
            start = self._start
            rest = self._end - start
            if rest < _SIMPLE:
                return
            head, cookie = SIMPLE_REPLY.unpack_from(buffer, start)
            magic = head >> 32
            if magic == STRUCTURED_REPLY_MAGIC and self._structured:
                if rest < _CHUNK or not self._begin_chunk(head, cookie, rest, ended):
                    return
            elif magic == SIMPLE_REPLY_MAGIC:
                self._take_simple(head & 0xFFFFFFFF, cookie, ended)
            else:
                raise RemoteProtocolError(f"a reply begins with {magic:#010x}")

    # Simple replies.

    def _take_simple(self, error: int, cookie: int, ended: list[Request]) -> None:
        request = self.pending.get(cookie)
        if request is None:
            raise _unknown(cookie)
        self._start += _SIMPLE
        if request.begun:
            raise RemoteProtocolError("a simple reply in the middle of a structured one")
        if request.command == _READ:
            if self._structured:
                text = "a simple reply to READ after structured replies were agreed"
                raise RemoteProtocolError(text)
            if not error:
                self._current, self._left, self._to, self._last = request, request.length, 0, True
                request.filled = request.length
                return
        elif request.command == _BLOCK_STATUS and not error:
            raise RemoteProtocolError("a simple reply to BLOCK_STATUS that says nothing")
        if error:
            request.fail(error, "")
        del self.pending[cookie]
        ended.append(request)

    # Structured replies.

    def _take_whole(self, ended: list[Request]) -> None:
        """Take replies to READs, each in one chunk that is all there: most are."""
        buffer, pending = self._buffer, self.pending
        unpack = DATA_CHUNK.unpack_from
        start, end = self._start, self._end
        while end - start >= _DATA:
            head, cookie, length, offset = unpack(buffer, start)
            stop = start + _CHUNK + length
            if head != _DATA_LAST or stop > end:
                break
            request = pending.get(cookie)
            if (
                request is None
                or request.offset != offset
                or request.length != length - 8
                or request.command != _READ
                or request.begun
            ):
                break  # a mistake of the server's perhaps, which the general case tells
            target = request.target
            if target is not None:  # else the request was given up
                target[:] = buffer[start + _DATA : stop]
            del pending[cookie]
            ended.append(request)
            start = stop
        if ended:
            self._long = False
        self._start = start

    def _begin_chunk(self, head: int, cookie: int, rest: int, ended: list[Request]) -> bool:
        """Take a chunk, or the beginning of one; False if more bytes are needed."""
        start = self._start
        request = self.pending.get(cookie)
        if request is None:
            raise _unknown(cookie)
        if head in (_DATA_LAST, _DATA_HEAD):
            if rest < _DATA:
                return False
            _, _, length, offset = DATA_CHUNK.unpack_from(self._buffer, start)
            self._start = start + _DATA
            self._current, self._to = request, offset - request.offset
            self._left, self._last = length - 8, head == _DATA_LAST
            request.take_data(offset, length - 8)
            if not self._left:
                self._end_payload(ended)
            return True
        return self._begin_other_chunk(head, request, rest, ended)

    def _begin_other_chunk(
        self, head: int, request: Request, rest: int, ended: list[Request]
    ) -> bool:
        """Take a chunk that has no data. Its contents are short, but for those of extents."""
        flags, kind = head >> 16 & 0xFFFF, head & 0xFFFF
        _, _, length = CHUNK.unpack_from(self._buffer, self._start)
        last = bool(flags & ChunkFlag.DONE)
        if kind == ChunkType.BLOCK_STATUS:
            self._rules.check_extents_length(request, length)
            self._start += _CHUNK
            self._current, self._left, self._last, self._sink = request, length, last, bytearray()
            return True
        if kind == ChunkType.OFFSET_DATA:
            raise RemoteProtocolError(f"a chunk of data with the flags {flags:#x}")
        self._rules.check_length(kind, length)
        if rest < _CHUNK + length:
            return False
        body = self._buffer[self._start + _CHUNK : self._start + _CHUNK + length]
        self._start += _CHUNK + length
        if kind & CHUNK_ERROR:
            self._rules.take_error(request, kind, body)
        else:
            self._rules.take_short(request, kind, body, last=last)
        if last:
            self._finish(request, ended)
        return True

    # Payloads.

    def _take_payload(self, ended: list[Request]) -> bool:
        """Take what the buffer has of the payload; False if that is not all."""
        current, start = self._current, self._start
        assert current is not None
        size = min(self._left, self._end - start)
        if self._sink is not None:
            self._sink += self._buffer[start : start + size]
        else:
            target = current.target
            if target is not None:  # else the request was given up
                target[self._to : self._to + size] = self._buffer[start : start + size]
        self._start = start + size
        self._to += size
        self._left -= size
        if self._left:
            return False
        self._end_payload(ended)
        return True

    def _end_payload(self, ended: list[Request]) -> None:
        current, sink = self._current, self._sink
        assert current is not None
        self._current = self._sink = None
        if sink is not None:
            self._rules.take_extents(current, sink)
        if self._last:
            self._finish(current, ended)

    def _finish(self, request: Request, ended: list[Request]) -> None:
        if not request.error:
            if request.command == _READ and request.filled != request.length:
                text = f"a READ of {request.length} bytes has ended after {request.filled}"
                raise RemoteProtocolError(text)
            if request.command == _BLOCK_STATUS:
                self._rules.check_contexts(request)
        del self.pending[request.cookie]
        ended.append(request)


def _unknown(cookie: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"a reply to cookie {cookie:#x}, which no request waits for")
