"""The program that `ps`, `pstree` and `top` look at: find its socket, read a snapshot from it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..debug._listener import ALL, GREETING, HOMES
from ..debug._snapshot import VERSION
from ._errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 5.0  # seconds for a greeting: a thread of its own gives it
_PEEK = 1.0  # seconds for one of several sockets to say that it is the one
_MOST = 60.0  # seconds for a snapshot of very many tasks
_LISTENS = 0x10000  # the kernel's flag of a socket in listen(), in /proc/net/unix


def read(where: str, *, with_tasks: bool) -> dict[str, Any]:
    """Return a snapshot of the program: a process's number or a socket. Raises CommandError."""
    path = _socket_of(where) if where.isdecimal() else where
    with _connect(path, _PATIENCE) as client:
        text = _ask(client, path, ALL if with_tasks else HOMES)
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{path!r} has sent less than a snapshot: {error}") from error
    if found["homebound"] != VERSION:
        raise CommandError(f"{path!r} is of another version of homebound")
    return found


def _socket_of(pid: str) -> str:
    """Return the socket of a process that greets as a Listener does; it may have others, too."""
    try:
        paths = list(_listening(Path("/proc") / pid))
    except OSError as error:
        why = error.strerror or str(error)
        if _has_ended(pid):
            why = "it has ended, and waits for its parent to take note (a zombie)"
        elif isinstance(error, FileNotFoundError):
            why = "there is none"
        raise CommandError(f"cannot look at process {pid}: {why}") from error
    for path in paths:
        try:
            _connect(path, _PEEK).close()
        except CommandError:
            continue
        return path
    raise CommandError(
        f"process {pid} does not listen; start it with HOMEBOUND_TOP=path, or have it call "
        "homebound.debug.listen(path)"
    )


def _has_ended(pid: str) -> bool:
    """Return whether a process is a zombie: its number is taken, and nothing else is left of it."""
    try:
        status = Path("/proc", pid, "stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]  # the name before may have any character


def _listening(process: Path) -> Iterator[str]:
    """Yield the paths of the Unix sockets that a process listens on."""
    inodes = {_inode(entry) for entry in (process / "fd").iterdir()}
    here = (process / "cwd").readlink()
    for line in (process / "net" / "unix").read_text(errors="surrogateescape").splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENS and fields[6] in inodes:  # noqa: PLR2004
            yield str(here / fields[7])


def _inode(entry: Path) -> str | None:
    try:
        kind, _, inode = str(entry.readlink()).partition(":")
    except OSError:  # it has been closed
        return None
    return inode.strip("[]") if kind == "socket" else None


def _connect(path: str, patience: float) -> socket.socket:
    """Return a connection whose other end has greeted. Raises CommandError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(patience)
        client.connect(path)
        greets = client.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
    except BaseException as error:
        client.close()
        if isinstance(error, (OSError, ValueError)):  # ValueError: a null byte
            words = getattr(error, "strerror", None) or str(error)
            raise CommandError(f"cannot connect to {path!r}: {words}") from error
        raise
    if not greets:
        client.close()
        raise CommandError(f"cannot read from {path!r}: no program of homebound listens there")
    return client


def _ask(client: socket.socket, path: str, request: bytes) -> bytes:
    client.settimeout(_MOST)
    text = bytearray()
    try:
        client.sendall(request)
        while data := client.recv(1 << 20):
            text += data
    except OSError as error:
        raise CommandError(f"cannot read from {path!r}: {error.strerror or error}") from error
    return bytes(text)
