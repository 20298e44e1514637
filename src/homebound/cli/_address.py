"""Addresses to listen on: a Unix socket, a TCP port, or sockets that another program has opened."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..block._names import is_uri
from ..nbd._client.uri import parse_uri
from ..nbd._server.server import DEFAULT_PORT
from ._errors import ServeError

if TYPE_CHECKING:
    from ..nbd import NBDServer

DEFAULT_HOST = "127.0.0.1"
_LONGEST_UNIX = 107  # bytes of a socket's path
_FIRST_ACTIVATED = 3  # the number of the first descriptor that a service manager hands over


@dataclass(frozen=True)
class Address:
    """Descriptors of listening sockets if there are any, else a Unix socket, else host and port."""

    unix: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    descriptors: tuple[int, ...] = ()

    def check_other(self, spec: str) -> None:
        """Raise ServeError if a disk is the URI of this address: its requests would come here."""
        if not is_uri(spec):
            return
        target = parse_uri(spec)
        there = (target.path and _absolute(target.path)) or (_plain(target.host), target.port)
        if there in self._places():
            raise ServeError(
                f"{spec!r} is the address that this server listens on, so it would serve itself; "
                "choose another one with --unix or --port"
            )

    def _places(self) -> set[object]:
        if self.descriptors:
            return {_place_of(fd) for fd in self.descriptors}
        if self.unix is not None:
            return {_absolute(self.unix)}
        return {(_plain(self.host), self.port)}

    async def listen(self, server: NBDServer) -> None:
        """Have the server listen on this address; its URIs are valid in any directory.

        Raises ListenError, or ServeError for a descriptor that is not a socket.
        """
        if self.descriptors:
            for fd in self.descriptors:
                await server.listen_socket(_socket_of(fd))
        elif self.unix is not None:
            await server.listen_unix(_absolute(self.unix))
        else:
            await server.listen_tcp(self.host, self.port)


def take_activated() -> tuple[int, ...]:
    """Return the descriptors that systemd's protocol (LISTEN_FDS) has passed to this process.

    Removes the variables from the environment, as they are not meant for its child processes.
    Raises ServeError for more than the process can have.
    """
    own = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    number = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not own or not number.isdecimal():
        return ()
    most = os.sysconf("SC_OPEN_MAX")
    if len(number) > len(str(most)) or int(number) > most:
        raise ServeError(f"LISTEN_FDS={number[:20]}: a process has at most {most} descriptors")
    return tuple(range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(number)))


def _socket_of(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise ServeError(f"cannot listen on descriptor {fd}: {error.strerror}") from error


def _place_of(fd: int) -> object:
    try:
        with socket.socket(fileno=os.dup(fd)) as listener:
            name = listener.getsockname()
    except OSError:
        return None  # listening on it raises an error that says what is wrong
    if isinstance(name, (str, bytes)):
        return os.fsdecode(name)
    return _plain(name[0]), name[1]


def _plain(host: str) -> str:
    """Return one name for what means this machine in IPv4."""
    return DEFAULT_HOST if host.lower() in {"", "localhost", "0.0.0.0", "::"} else host.lower()  # noqa: S104


def _absolute(path: str) -> str:
    """Return the absolute path of a socket, or `path` if the absolute one is too long."""
    absolute = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118  (a Path would not keep bytes)
    if ".." not in path.split("/"):  # the component before ".." may be a symbolic link
        absolute = os.path.normpath(absolute)
    return absolute if len(os.fsencode(absolute)) <= _LONGEST_UNIX else path
