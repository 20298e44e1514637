"""Both ends of a connection in memory; what passes between them is split anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homebound.nbd import Chosen, Closed, ExportTable, ServerHandshake
from homebound.nbd._protocol.handshake import StartTLS, Tls

if TYPE_CHECKING:
    from homebound.nbd._protocol.client_request import Request
    from homebound.nbd._protocol.reply_reader import ReplyReader


class HungUpError(Exception):
    """The server has disconnected."""


class Joined:
    """Both ends of the handshake: what the client sends reaches the server in pieces."""

    def __init__(self, exports: ExportTable, sizes: list[int], tls: Tls = Tls.NONE) -> None:
        self.exports = exports
        self.server = ServerHandshake(exports, tls)
        self.to_client = bytearray(self.server.greeting())
        self.sizes = list(sizes)
        self.chosen: Chosen | None = None
        self.closed = False

    def run(self, exchange: Any) -> Any:
        answer: bytes | None = None
        while True:
            try:
                step = next(exchange) if answer is None else exchange.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = self.sent(step) if isinstance(step, bytes) else self.take(step)

    def sent(self, data: bytes) -> bytes:
        while data:
            size = self.sizes.pop() if self.sizes else len(data)
            self.server.receive(data[:size])
            data = data[size:]
            while (event := self.server.next_event()) is not None:
                self.to_client += event.data
                if isinstance(event, Chosen):
                    self.chosen = event
                elif isinstance(event, Closed):
                    self.closed = True
                elif isinstance(event, StartTLS):
                    self.server.encrypted(self.exports)
        return b""

    def take(self, size: int) -> bytes:
        if len(self.to_client) < size and self.closed:
            raise HungUpError
        assert len(self.to_client) >= size, "the client waits for what the server has not sent"
        data = bytes(self.to_client[:size])
        del self.to_client[:size]
        return data


def feed(reader: ReplyReader, stream: bytes, sizes: list[int]) -> list[Request]:
    """Receive a stream in pieces, as a socket would."""
    ended: list[Request] = []
    sizes = list(sizes)
    while stream:
        buffer = reader.get_buffer()
        assert len(buffer)
        size = min(len(buffer), len(stream), sizes.pop() if sizes else len(stream))
        buffer[:size] = stream[:size]
        stream = stream[size:]
        ended += reader.received(buffer, size)
        if reader.broken is not None:
            raise reader.broken
    return ended
