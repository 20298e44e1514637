"""One connection in the transmission phase, driven by the calls of its user: no loop, no thread."""

from __future__ import annotations

import errno
import select
import ssl
from typing import TYPE_CHECKING, Any

from .._client.call import errno_of
from .._client.outgoing import Outgoing
from .._protocol.client_request import Request
from .._protocol.reply_reader import ReplyReader
from .._protocol.wire import REQUEST, Command, request_head
from .constants import READ_DATA, READ_ERROR

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .._protocol.client_handshake import RemoteExport

_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ErrorValue:
    """An errno that a callback reads, and may change, as `value`."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class Order(Request):
    """A request, and the callbacks that are told of its end."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.number = -1  # 0, or an errno, once it has ended
        self.cause: Exception | None = None  # that a callback has raised
        self.completion: Callable[[ErrorValue], object] | None = None
        self.extent: Callable[[str, int, list[int], ErrorValue], object] | None = None
        self.chunk: Callable[[memoryview, int, int, ErrorValue], object] | None = None

    def end(self, number: int, names: dict[int, str]) -> bool:
        """Make the callbacks; return whether the order is done with, as `completion` may say."""
        if self.chunk is not None:
            number = self._tell_chunk(number)
        if self.extent is not None and not number:
            number = self._tell_extents(names)
        self.number = number
        if self.completion is None:
            return False
        self.number, told = self._call(number, self.completion)
        return told == 1

    def _call(self, number: int, callback: Callable[..., object], *args: Any) -> tuple[int, object]:
        """Make a callback; return the errno afterwards, and what it has returned.

        It may change the errno only if it fails: by raising, or by returning -1.
        """
        value = ErrorValue(number)
        try:
            told = callback(*args, value)
        except Exception as error:  # noqa: BLE001  (it becomes the cause of the Error)
            self.cause, told = error, -1
        if told == -1:
            number = value.value or errno.EPROTO
        return number, told

    def _tell_chunk(self, number: int) -> int:
        """Pass on the data as one chunk, or that there is none."""
        assert self.chunk is not None
        assert self.target is not None
        target = self.target.toreadonly()
        part, status = (target[:0], READ_ERROR) if number else (target, READ_DATA)
        return self._call(number, self.chunk, part, self.offset, status)[0]

    def _tell_extents(self, names: dict[int, str]) -> int:
        assert self.extent is not None
        number = 0
        for context, body in (self.extents or {}).items():
            entries = [int.from_bytes(body[at : at + 4], "big") for at in range(0, len(body), 4)]
            number, _ = self._call(number, self.extent, names[context], self.offset, entries)
        return number


class Session:
    """Sends orders, receives replies. Not locked: its handle is."""

    def __init__(self, sock: socket.socket, export: RemoteExport) -> None:
        sock.settimeout(0)
        self.sock: socket.socket = sock
        self.export: RemoteExport = export
        self._reader = ReplyReader(export.contexts, structured=export.structured)
        self._outgoing = Outgoing()
        self._cookie = 0
        self.ended: dict[int, Order] = {}  # and not asked about yet, by cookie
        self.broken: Exception | None = None
        self.closed = False

    @property
    def in_flight(self) -> int:
        """The orders without a reply."""
        return len(self._reader.pending)

    @property
    def sends(self) -> bool:
        """True while something is unsent."""
        return bool(self._outgoing)

    def submit(self, order: Order) -> int:
        """Send an order, or as much of it as can be sent now; return its cookie."""
        self._cookie += 1
        self._outgoing.add(order.head(self._cookie), order.data)
        self._reader.pending[self._cookie] = order
        self.write()
        return self._cookie

    def wait(self, order: Order) -> int:
        """Wait for the end of an order; return its errno. Blocks."""
        while order.number < 0:
            self.turn(None)
        self.ended.pop(order.cookie, None)
        return order.number

    def turn(self, milliseconds: int | None) -> bool:
        """Wait until something can be sent or received, and do it; False after the time."""
        if not self._has_decrypted():
            waiter = select.poll()
            waiter.register(self.sock, select.POLLIN | (select.POLLOUT if self.sends else 0))
            if not waiter.poll(milliseconds):
                return False
        self.write()
        self.read()
        return True

    def _has_decrypted(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def write(self) -> None:
        """Send what is unsent, as far as possible."""
        if self.sends and self.broken is None:
            try:
                self._outgoing.send(self.sock)
            except OSError as error:
                self.lose(error)

    def read(self) -> None:
        """Receive what is there; end the orders that it answers."""
        reader = self._reader
        if self.broken is not None or self.closed:
            return
        buffer = reader.get_buffer()
        try:
            size = self.sock.recv_into(buffer)
            ended = reader.received(buffer, size) if size else []
        except _NOT_NOW:
            return
        except Exception as error:  # noqa: BLE001  (whatever it is, the connection is of no use)
            self.lose(error)
            return
        if not size:
            self.lose(ConnectionResetError(errno.ENOTCONN, "the server has disconnected"))
        for request in ended:
            self._end(request, errno_of(request.error))
        if reader.broken is not None:
            self.lose(reader.broken)

    def _end(self, order: Request, number: int) -> None:
        assert isinstance(order, Order)
        if not order.end(number, self.export.contexts):
            self.ended[order.cookie] = order

    def lose(self, error: Exception) -> None:
        """Fail what is in flight; the connection is of no more use."""
        self.broken = error
        pending, self._reader.pending = self._reader.pending, {}
        for request in pending.values():
            self._end(request, errno.ENOTCONN)

    def disconnect(self) -> None:
        """Say that the client goes. Blocks until it is said."""
        if not self.closed and self.broken is None:
            self._outgoing.add(REQUEST.pack(request_head(Command.DISC), 0, 0, 0))
            while self.sends and self.broken is None:
                self.turn(None)
        self.closed = True

    def finish(self) -> None:
        """Wait for what is in flight. Blocks."""
        while self.in_flight and self.broken is None:
            self.turn(None)

    def close(self) -> None:
        """Disconnect."""
        self.closed = True
        self.sock.close()
