"""The alert of a TLS handshake that has failed, which tells the client why.

asyncio and uvloop close the connection as soon as OpenSSL refuses it, before they send what OpenSSL
has to say of that. So the alert is taken from OpenSSL here, and sent on a second descriptor of the
socket.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError)
_NAME = "do_handshake"
_SECONDS = 1.0  # for the client to read the alert
_PIECE, _PIECES = 16 << 10, 16  # bytes received at a time, and how often, meanwhile


class Overheard(ssl.SSLContext):
    """A context for one connection, which does as `context` does, and keeps the alert. Home only.

    The loops ask it for nothing but `wrap_bio`.
    """

    alert: bytes
    _context: ssl.SSLContext
    _object: ssl.SSLObject | None

    def __new__(cls, context: ssl.SSLContext) -> Self:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._context = context
        self._object = None
        self.alert = b""
        return self

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any
    ) -> ssl.SSLObject:
        """Return the TLS of the connection, whose handshake keeps what it leaves unsent."""
        self._object = made = self._context.wrap_bio(incoming, outgoing, *args, **options)
        handshake = made.do_handshake

        def do_handshake() -> None:
            try:
                handshake()
            except _AGAIN:
                raise
            except ssl.SSLError:
                self.alert = outgoing.read()  # before the loop, which would discard it
                raise

        vars(made)[_NAME] = do_handshake  # of this object alone
        return made

    def leave(self) -> None:
        """Hear no more: the handshake has ended."""
        if self._object is not None:
            vars(self._object).pop(_NAME, None)
            self._object = None


class AlertSender:
    """A second descriptor of a connection's socket, within the block. Home thread only."""

    def __init__(self, context: ssl.SSLContext, transport: asyncio.Transport) -> None:
        self.context: Overheard = Overheard(context)
        self._transport = transport
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        sock = self._transport.get_extra_info("socket")
        if sock is None:  # a transport that is none of a socket
            return self
        try:
            self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        except OSError:
            pass  # no descriptor is left: the client hears nothing
        else:
            self._socket.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.context.leave()
        if self._socket is not None:
            self._socket.close()

    async def send(self) -> None:
        """Send the alert, and wait a moment for the client to read it and to disconnect."""
        sock, alert = self._socket, self.context.alert
        if sock is None or not alert:
            return
        try:
            sock.send(alert)
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_SECONDS):
                await self._drain(sock)
        except (OSError, TimeoutError):
            pass  # it has gone

    @staticmethod
    async def _drain(sock: socket.socket) -> None:
        """Discard what the client sends: with that unread, closing would discard the alert."""
        loop = asyncio.get_running_loop()
        for _ in range(_PIECES):
            if not await loop.sock_recv(sock, _PIECE):
                break
