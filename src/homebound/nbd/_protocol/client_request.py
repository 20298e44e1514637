"""A request as its sender sees it, and how much of its reply has come."""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING

from .errors import RemoteProtocolError
from .wire import REQUEST_MAGIC, REQUEST_PARTS, Command, CommandFlag

if TYPE_CHECKING:
    Data = bytes | bytearray | memoryview

_pack = REQUEST_PARTS.pack
_READ, _DF = int(Command.READ), int(CommandFlag.DF)
MAX_ERRORS = 1 << 16  # in a reply: one for each sector of the largest usual READ
MAX_PIECES = 4096  # separate pieces of a read that may be there before the rest


class Request:
    """One request, and what its reply has said so far."""

    # Defaults, which are set for the few requests that differ: there are no slots, for these would
    # all have to be filled, for each request.
    begun = False  # a chunk of a structured reply has come
    error = 0  # the first that a reply named
    error_text = ""
    _errors = 0  # how many errors have come
    filled = 0  # bytes at the beginning of the target that have come
    _pieces: list[tuple[int, int]] | None = None  # what has come beyond those, in order
    extents: dict[int, bytearray] | None = None  # by context id, as they came
    cookie = 0

    def __init__(  # noqa: PLR0913, PLR0917  (the fields of a request)
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        flags: int = 0,
        data: Data = b"",
        target: memoryview | None = None,
    ) -> None:
        self.command = command
        self.offset = offset
        self.length = length
        self.flags = flags
        self.data: Data = data  # of a WRITE
        self.target = target  # of a READ: `length` bytes; None: its data is dropped

    def reset(self) -> None:
        """Forget what has come of a reply: the request is to be sent again."""
        self.begun = False
        self.error = self._errors = self.filled = 0
        self.error_text = ""
        self._pieces = self.extents = None

    def head(self, cookie: int) -> bytes:
        """Pack it, without its payload."""
        self.cookie = cookie
        return _pack(REQUEST_MAGIC, self.flags, self.command, cookie, self.offset, self.length)

    def fail(self, error: int, text: str) -> None:
        """Take an error; the first one counts. Raises RemoteProtocolError if they do not end."""
        self._errors += 1
        if self._errors > MAX_ERRORS:
            raise RemoteProtocolError(f"a reply does not end: {self._errors} errors came")
        if not self.error:
            self.error, self.error_text = error, text

    def take_data(self, offset: int, length: int) -> None:
        """Take a piece of a read. Raises RemoteProtocolError if it cannot be one."""
        start = offset - self.offset
        stop = start + length
        if self.command != _READ:
            raise RemoteProtocolError("a chunk of data for a request that is no READ")
        if start < 0 or stop > self.length or (length <= 0 and self.length):
            raise RemoteProtocolError(
                f"a chunk of {length} bytes at {offset}, in the reply to a READ of {self.length} "
                f"bytes at {self.offset}"
            )
        if self.begun and self.flags & _DF:
            raise RemoteProtocolError("several chunks of data, though they were not to be split")
        self.begun = True
        if start == self.filled and self._pieces is None:
            self.filled = stop
        else:
            self._insert(start, stop)

    def _insert(self, start: int, stop: int) -> None:
        """Note a piece that did not come in order."""
        pieces = [] if self._pieces is None else self._pieces
        at = bisect(pieces, (start, stop))
        before = pieces[at - 1][1] if at else self.filled
        after = pieces[at][0] if at < len(pieces) else self.length
        if start < before or stop > after:
            raise RemoteProtocolError("two chunks of data of one reply overlap")
        if at and before == start:
            start, _ = pieces.pop(at - 1)
            at -= 1
        if at < len(pieces) and after == stop:
            _, stop = pieces.pop(at)
        if start == self.filled:
            self.filled = stop
        else:
            pieces.insert(at, (start, stop))
        if len(pieces) > MAX_PIECES:
            raise RemoteProtocolError(f"a reply comes in more than {MAX_PIECES} separate pieces")
        self._pieces = pieces or None
