"""Listening sockets that another program has opened."""

from __future__ import annotations

import socket

from .._protocol.errors import ListenError
from .published import tcp_uri, unix_uri


def adopt(listener: socket.socket, name: str) -> str | None:
    """Take over a listening socket; return the URI of an export on it, None if it has none.

    Raises ListenError, and closes the socket, if it does not listen.
    """
    fd = listener.fileno()
    try:
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        address = listener.getsockname()
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on descriptor {fd}: {error.strerror}") from error
    if not listens or listener.type != socket.SOCK_STREAM:
        listener.close()
        raise ListenError(f"cannot listen on descriptor {fd}: it is not a listening stream socket")
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        return tcp_uri((address[0], address[1]), name)
    if listener.family == socket.AF_UNIX and isinstance(address, str) and address:
        return unix_uri(address, name)
    return None
