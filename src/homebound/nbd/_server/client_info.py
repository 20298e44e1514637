"""A client as the code that finds its export sees it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..._os.guard import new_guard

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A connected client. `name` is for people: `192.0.2.7:43210`, or `process 4711, user 1000`.

    `address` is what `socket.getpeername` returns. `process`, `user` and `group` are numbers, of
    clients on a Unix socket only. `tls` says that the connection is encrypted, and `tls_subject` is
    the distinguished name in the client's verified certificate, None without one.
    """

    name: str
    address: Any
    process: int | None = None
    user: int | None = None
    group: int | None = None
    tls: bool = False
    tls_subject: str | None = None
    _disconnect: Callable[[bool], None] | None = field(default=None, repr=False, compare=False)

    def disconnect(self, *, force: bool = False) -> None:
        """Disconnect the client after its requests in flight, or at once with `force`.

        Called from: any thread.
        """
        if self._disconnect is not None:
            self._disconnect(force)


class Reach:
    """The place where a client is served now, so that any thread can disconnect it there."""

    __slots__ = ("_force", "_lock", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        # Under the lock: the place, and with what `force` the client is to be disconnected, if it
        # is. A client that is between two homes has no transport to end; its arrival asks.
        self._lock = new_guard()
        self._transport = transport
        self._loop = loop
        self._force: bool | None = None

    def disconnect(self, force: bool) -> None:  # noqa: FBT001  (called by position)
        """Disconnect the client where it is, or where it arrives.

        Called from: any thread.
        """
        with self._lock:
            self._force = bool(self._force) or force
            loop, transport = self._loop, self._transport
        try:
            loop.call_soon_threadsafe(_end, transport, force)
        except RuntimeError:
            pass  # the loop is closed, and its connections with it; or the client has left it

    def arrive(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the client is served elsewhere from now on.

        Called from: home thread.
        """
        with self._lock:
            self._transport, self._loop = transport, loop
            force = self._force
        if force is not None:
            loop.call_soon(_end, transport, force)


def describe_client(transport: asyncio.Transport, reach: Reach) -> ClientInfo:
    """Describe the client at the other end of a transport."""
    address = transport.get_extra_info("peername")
    process, user, group = _credentials(transport.get_extra_info("socket"))
    if process is not None:
        name = f"process {process}, user {user}"
    elif isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        name = f"{host}:{address[1]}"
    else:
        name = str(address or "unknown")

    tls = transport.get_extra_info("ssl_object") is not None
    subject = _subject(transport.get_extra_info("peercert") or {})
    return ClientInfo(name, address, process, user, group, tls, subject, reach.disconnect)


def _end(transport: asyncio.Transport, force: bool) -> None:  # noqa: FBT001
    if transport.is_closing():
        return
    if force:
        transport.abort()
    else:
        member: Any = transport.get_protocol()  # of either phase: see Member in lane.py
        member.stop()


def _credentials(connection: Any) -> tuple[int | None, int | None, int | None]:
    """Return the process, user and group at the other end of a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None, None, None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (AttributeError, OSError):  # another system than Linux, or the client has gone
        return None, None, None
    process, user, group = _CREDENTIALS.unpack(raw)
    return process, user, group


def _subject(certificate: dict[str, Any]) -> str | None:
    """Return the subject of a certificate as `ssl` describes it, the most specific part first."""
    parts = [pair for group in certificate.get("subject", ()) for pair in group]
    return ",".join(f"{_SHORT.get(key, key)}={value}" for key, value in reversed(parts)) or None


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
}
