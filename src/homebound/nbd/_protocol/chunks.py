"""The chunks of structured replies that carry no data: holes, extents, errors, ends."""

from __future__ import annotations

from struct import iter_unpack
from typing import TYPE_CHECKING

from .errors import RemoteProtocolError
from .option_replies import parse_text
from .wire import (
    ERROR_BODY,
    HOLE_BODY,
    ID,
    MAX_EXTENTS,
    MAX_STRING,
    OFFSET,
    ChunkType,
    Command,
    CommandFlag,
)

if TYPE_CHECKING:
    from .client_request import Request

_EXTENT = ">II"  # length, flags
_EXTENT_SIZE = 8
_MOST_BYTES = ERROR_BODY.size + MAX_STRING + OFFSET.size
_MOST_EXTENT_BYTES = 4 * MAX_EXTENTS * _EXTENT_SIZE  # of all contexts, in one reply
_ZEROES = bytes(64 << 10)


class ChunkRules:
    """Checks the chunks of one connection, and notes what they say in their requests."""

    __slots__ = ("_contexts", "broken")

    def __init__(self, contexts: dict[int, str]) -> None:
        self._contexts = contexts
        self.broken: RemoteProtocolError | None = None

    @staticmethod
    def check_length(kind: int, length: int) -> None:
        """Check the length of a chunk that must be short, before it is waited for."""
        if length > _MOST_BYTES:
            raise RemoteProtocolError(f"a chunk of type {kind:#x} has {length} bytes")

    def take_short(self, request: Request, kind: int, body: memoryview, *, last: bool) -> None:
        """Take a chunk that is neither data, extents nor an error."""
        if kind == ChunkType.OFFSET_HOLE:
            self._take_hole(request, body)
        elif kind != ChunkType.NONE:
            raise RemoteProtocolError(f"a chunk of the unknown type {kind:#x}")
        elif body or not last:
            raise RemoteProtocolError("a chunk of type NONE that is not empty, or not the last")
        request.begun = True

    @staticmethod
    def _take_hole(request: Request, body: memoryview) -> None:
        if len(body) != HOLE_BODY.size:
            raise RemoteProtocolError(f"a hole has {len(body)} bytes, not {HOLE_BODY.size}")
        offset, length = HOLE_BODY.unpack(body)
        if not length:
            raise RemoteProtocolError("a hole of no bytes")
        request.take_data(offset, length)
        if request.target is not None:
            start = offset - request.offset
            for at in range(start, start + length, len(_ZEROES)):
                size = min(len(_ZEROES), start + length - at)
                request.target[at : at + size] = _ZEROES[:size]

    @staticmethod
    def take_error(request: Request, kind: int, body: memoryview) -> None:
        """Take an error, of the whole request or at an offset."""
        if len(body) < ERROR_BODY.size:
            raise RemoteProtocolError(f"an error of {len(body)} bytes")
        error, length = ERROR_BODY.unpack_from(body)
        end = ERROR_BODY.size + length
        tail = OFFSET.size if kind == ChunkType.ERROR_OFFSET else 0
        known = kind in (ChunkType.ERROR, ChunkType.ERROR_OFFSET)
        if length > MAX_STRING or (len(body) != end + tail if known else len(body) < end):
            raise RemoteProtocolError(f"an error of {len(body)} bytes has {length} of text")
        if not error:
            raise RemoteProtocolError("an error that is none: its value is 0")
        text = parse_text(bytes(body[ERROR_BODY.size : end]))
        if tail:
            (offset,) = OFFSET.unpack_from(body, end)
            if not request.offset <= offset <= request.offset + request.length:
                raise RemoteProtocolError(f"an error at {offset}, outside of its request")
            text = f"{text} (at {offset})" if text else f"at {offset}"
        request.begun = True
        request.fail(error, text)

    def check_extents_length(self, request: Request, length: int) -> None:
        """Check the length of a chunk of extents, before it is received."""
        if request.command != Command.BLOCK_STATUS:
            raise RemoteProtocolError("extents for a request that is no BLOCK_STATUS")
        count, odd = divmod(length - ID.size, _EXTENT_SIZE)
        if odd or not 1 <= count <= MAX_EXTENTS:
            raise RemoteProtocolError(f"{length} bytes of extents")
        others = sum(map(len, (request.extents or {}).values()))
        if length + others > _MOST_EXTENT_BYTES:
            raise RemoteProtocolError(f"{length + others} bytes of extents, of all contexts")
        if count > 1 and request.flags & CommandFlag.REQ_ONE:
            raise RemoteProtocolError(f"{count} extents, where one was requested")

    def take_extents(self, request: Request, body: bytearray) -> None:
        """Take the extents of one context."""
        (number,) = ID.unpack_from(body)
        del body[: ID.size]
        request.begun = True
        found = request.extents if request.extents is not None else {}
        if number not in self._contexts:
            raise RemoteProtocolError(f"extents of a metadata context {number}, unknown here")
        if number in found:
            raise RemoteProtocolError(f"extents of {self._contexts[number]} came twice")
        total = 0
        for length, _ in iter_unpack(_EXTENT, body):
            if not length:
                raise RemoteProtocolError("an extent of no bytes")
            if total >= request.length:
                raise RemoteProtocolError("an extent that begins beyond its request")
            total += length
        if request.flags & CommandFlag.REQ_ONE and total > request.length:
            raise RemoteProtocolError("one extent was requested, and it is longer than asked")
        found[number] = body
        request.extents = found

    def check_contexts(self, request: Request) -> None:
        """Check that a reply that ends well has told of each context."""
        missing = self._contexts.keys() - (request.extents or {}).keys()
        if missing:
            names = ", ".join(self._contexts[number] for number in sorted(missing))
            raise RemoteProtocolError(f"a block status says nothing of {names}")


def extents_in(body: bytearray | bytes) -> list[tuple[int, int]]:
    """Return the lengths and flags of extents as they came."""
    return list(iter_unpack(_EXTENT, body))
