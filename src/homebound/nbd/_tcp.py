"""The TCP options of NBD connections, a server's and a client's."""

from __future__ import annotations

import socket

# Seconds before the first probe and between probes, and their number. Not TCP_USER_TIMEOUT: Linux
# ends a connection by it whose peer answers, but has not read for so long.
_KEEP_ALIVE = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 5,
}


def prepare_tcp(connection: socket.socket) -> None:
    """Have small messages sent at once, and a vanished peer noticed, unless it is no TCP socket.

    A peer whose machine has vanished is noticed within 2 minutes if nothing is unsent. Otherwise
    the system notices that it acknowledges nothing, which takes longer.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        number = getattr(socket, name, None)  # not every system has each
        if number is not None:
            connection.setsockopt(socket.IPPROTO_TCP, number, value)
