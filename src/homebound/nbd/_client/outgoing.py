"""The bytes to send on a connection: requests packed together, payloads as they are."""

from __future__ import annotations

import ssl
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from .._protocol.client_request import Data

_COPIED = 16 << 10  # bytes of a payload that is packed with its request
_AT_ONCE = 64  # parts in one system call
_TLS_AT_ONCE = 256 << 10
_BLOCKS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Outgoing:
    """The unsent bytes of one connection. Home only."""

    __slots__ = ("_parts", "packed")

    def __init__(self) -> None:
        self.packed = bytearray()  # what comes last: requests are appended to it
        self._parts: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self.packed or self._parts)

    def add(self, head: bytes, data: Data = b"") -> None:
        """Add a request, and its payload, which must stay as it is until it has been sent."""
        self.packed += head
        if data:
            self.add_payload(data)

    def add_payload(self, data: Data) -> None:
        """Add the payload of the request that was added last."""
        if len(data) <= _COPIED:
            self.packed += data
        else:
            self._close_packed()
            self._parts.append(memoryview(data).cast("B"))

    def send(self, sock: socket.socket) -> bool:
        """Send what the socket takes; whether that was all. Raises OSError."""
        if not self._parts and type(sock) is not ssl.SSLSocket:
            sent = _send(sock, self.packed)
            if sent == len(self.packed):
                self.packed.clear()
                return True
            del self.packed[:sent]
        self._close_packed()
        while self._parts:
            sent = self._send_parts(sock)
            if not sent:
                return False
            self._drop(sent)
        return True

    def _send_parts(self, sock: socket.socket) -> int:
        parts = self._parts
        try:
            if isinstance(sock, ssl.SSLSocket):
                # A call that did not go through must be made again with the same bytes: the first
                # part stays the first.
                return sock.send(parts[0][:_TLS_AT_ONCE])
            return sock.sendmsg(list(islice(parts, _AT_ONCE)))
        except _BLOCKS:
            return 0

    def _close_packed(self) -> None:
        if self.packed:
            self._parts.append(memoryview(self.packed))
            self.packed = bytearray()

    def _drop(self, sent: int) -> None:
        parts = self._parts
        while sent:
            first = parts[0]
            if sent < len(first):
                parts[0] = first[sent:]
                return
            sent -= len(first)
            parts.popleft()


def _send(sock: socket.socket, data: bytearray) -> int:
    try:
        return sock.send(data)
    except _BLOCKS:
        return 0
