"""Listening sockets, non-blocking, and the socket files of Unix ones."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .._protocol.errors import AddressInUse, ListenError
from .._tcp import prepare_tcp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]

_BACKLOG = 1024
_UNIX_SEND_BUFFER = 1 << 20  # bytes; the system's limit may be less


class UnixPath:
    """A socket file that this process has made; `remove` removes this one and no other.

    One that cannot be removed, as by a process that has given up its rights, is left; `listen_unix`
    replaces it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        status = os.lstat(path)
        self._identity = status.st_dev, status.st_ino

    def remove(self) -> None:
        """Unlink the file, unless it has been replaced by another one."""
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self._identity:
                Path(self.path).unlink()


def listen_unix(path: str | os.PathLike[str]) -> tuple[socket.socket, UnixPath]:
    """Listen on a path; a stale socket file, which no process listens on, is replaced.

    Raises AddressInUse if a process listens on it, ListenError if it cannot listen there.
    """
    name = os.fsdecode(path)
    if "\0" in name:
        raise ListenError(f"cannot listen on {name!r}: it has a null character")
    _remove_stale(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(name)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
        return listener, UnixPath(name)
    except OSError as error:
        listener.close()
        raise _refusal(repr(name), error) from error


def _remove_stale(name: str) -> None:
    try:
        mode = os.lstat(name).st_mode
    except OSError:
        return  # nothing is there, or bind fails too
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {name!r}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # a listener with a full backlog is one too
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            _unlink(name)
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            raise _in_use(repr(name)) from error
        except OSError as error:
            raise _refusal(repr(name), error) from error
        else:
            raise _in_use(repr(name))


def _unlink(name: str) -> None:
    try:
        Path(name).unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refusal(repr(name), error) from error


def check_port(host: str, port: object) -> None:
    """Raise ListenError for a port that getaddrinfo would take modulo 65536."""
    if isinstance(port, int) and port not in range(1 << 16):
        raise ListenError(f"cannot listen on {host!r} port {port}: ports are 0 to 65535")


def listen_tcp(host: str, addresses: Iterable[AddressInfo]) -> list[socket.socket]:
    """Listen on each of the `addresses` of `host`.

    Raises AddressInUse if one of them is in use, ListenError if one is not this machine's.
    """
    listeners: list[socket.socket] = []
    for family, kind, protocol, _, address in addresses:
        try:
            listeners.append(_listen_tcp(family, kind, protocol, address))
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise _refusal(f"{host!r} port {address[1]}", error) from error
    return listeners


def _listen_tcp(
    family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, address: tuple[Any, ...]
) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv6 only: the IPv4 address has a listener of its own.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener


def prepare(connection: socket.socket) -> None:
    """Set the options of an accepted connection."""
    connection.settimeout(0)
    if connection.family == socket.AF_UNIX:
        # By default a Unix socket buffers less than one large reply.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_SEND_BUFFER)
    prepare_tcp(connection)


def _in_use(where: str) -> AddressInUse:
    return AddressInUse(f"cannot listen on {where}: it is in use")


def _refusal(where: str, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return _in_use(where)
    return ListenError(f"cannot listen on {where}: {error.strerror or error}")
