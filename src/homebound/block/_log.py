"""A disk that notes each request: one line of JSON."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from .._os.clock import clock
from .._os.guard import new_guard
from ._filter import Filter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._disk import Disk
    from ._operations import Buffer

T = TypeVar("T")


class _Stream(Protocol):
    def write(self, text: str, /) -> object: ...


class LogDisk(Filter):
    r"""`disk`, with a line of JSON written to `stream` after each request.

    Its fields: `time` (seconds since the epoch, of the request's begin), `command` (read, write,
    flush, trim, write_zeroes, fast_zeroes, cache, block_status), `offset`, `length`, `result`
    ("ok", "cancelled", or the name of the error: "EIO"), `duration` (seconds). An attempt that did
    not succeed is not a request. If the stream fails, requests go on and no more is written;
    `failure` has the error. It does not close `disk`, nor the stream.

    >>> import homebound, io, json
    >>> from homebound.block import LogDisk, MemoryDisk
    >>> stream = io.StringIO()
    >>> async def main():
    ...     with MemoryDisk(1 << 20) as disk, LogDisk(disk, stream) as log:
    ...         await log.write(4096, b"hello")
    >>> homebound.run(main())
    >>> line = json.loads(stream.getvalue())
    >>> line["command"], line["offset"], line["length"], line["result"]
    ('write', 4096, 5, 'ok')

    Called from: any thread.
    """

    def __init__(self, disk: Disk, stream: _Stream) -> None:
        super().__init__(disk)
        if not hasattr(stream, "write"):
            message = f"LogDisk writes to an open file, as open(path, 'w') is, not to {stream!r}"
            raise TypeError(message)
        self.failure: Exception | None = None  # that of the stream; written under the lock
        self._stream = stream
        self._lock = new_guard()  # lines of several threads, one after the other

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Do as the disk below does; noted if it was done.

        Called from: any thread.
        """
        return self._attempt_noted("read", self.disk.try_read_into, offset, buffer)

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Do as the disk below does; noted if it was done.

        Called from: any thread.
        """
        return self._attempt_noted("write", self.disk.try_write, offset, data)

    def try_flush(self) -> bool:
        """Return whether the disk below has nothing to flush; noted if so.

        Called from: any thread.
        """
        if not super().try_flush():
            return False
        self._write(_Note("flush", 0, 0), None)
        return True

    def _attempt_noted(
        self, command: str, attempt: Callable[..., bool], offset: int, data: Buffer
    ) -> bool:
        self._check_open()
        note = _Note(command, offset, len(data))
        try:
            if not attempt(offset, data):
                return False
        except BaseException as error:
            self._write(note, error)
            raise
        self._write(note, None)
        return True

    async def _carry_out(
        self, command: str, offset: int, length: int, go_on: Callable[[int], Awaitable[T]]
    ) -> T:
        note = _Note(command, offset, length)
        try:
            result = await go_on(length)
        except BaseException as error:
            self._write(note, error)
            raise
        self._write(note, None)
        return result

    def _write(self, note: _Note, error: BaseException | None) -> None:
        line = note.line(error)
        with self._lock:
            if self.failure is None:
                try:
                    self._stream.write(line)
                except Exception as failure:  # noqa: BLE001  (a log must not fail the disk)
                    self.failure = failure


class _Note:
    """A request that has begun."""

    __slots__ = ("_began", "command", "length", "offset", "time")

    def __init__(self, command: str, offset: int, length: int) -> None:
        self.command = command
        self.offset = offset
        self.length = length
        self.time = time.time()
        self._began = clock.time()

    def line(self, error: BaseException | None) -> str:
        """Return the line that is written when it has ended."""
        fields = {
            "time": round(self.time, 6),
            "command": self.command,
            "offset": self.offset,
            "length": self.length,
            "result": _name(error),
            "duration": round(clock.time() - self._began, 6),
        }
        return json.dumps(fields) + "\n"


def _name(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0, type(error).__name__)
