"""Connecting a handle: to an address, a URI, a socket, or a server that is started for it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..._os.clock import monotonic
from .._client.dial import Shell
from .._client.uri import Target, URIError, parse_uri
from .._protocol.client_handshake import ClientHandshake, RemoteExport
from .._protocol.errors import OptionRefused
from .._tcp import prepare_tcp
from .constants import (
    ALLOW_TRANSPORT_TCP,
    ALLOW_TRANSPORT_UNIX,
    TLS_DISABLE,
    TLS_REQUIRE,
)
from .error import ClosedHandle, Error, failure, told_as
from .session import Session
from .settings import Settings
from .states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

_SECONDS = 86400.0  # for a handshake; libnbd has no limit
# A program that makes the socket descriptor 3, and LISTEN_PID its own number; then it becomes the
# server.
_ACTIVATE = """
import os, sys
if int(sys.argv[1]) != 3:
    os.dup2(int(sys.argv[1]), 3)
else:
    os.set_inheritable(3, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Connecting(Settings):
    """A handle that connects."""

    def __init__(self) -> None:
        super().__init__()
        self._state = State.START
        self._shell: Shell | None = None  # while NEGOTIATING
        self._handshake = ClientHandshake()
        self._export: RemoteExport | None = None  # what is known of it
        self._session: Session | None = None  # once READY
        self._target = Target("")
        self._process: subprocess.Popen[bytes] | None = None  # a server of ours
        self._directory: str | None = None  # of its socket
        self._contexts_agreed = False  # on the export of that name
        self._closed = False

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, ClosedHandle):  # __init__ failed; closed before
            self.close()

    def close(self) -> None:
        """Close the handle: disconnect, and end a server that was started for it.

        Raises ClosedHandle if that was done before.

        Called from: any thread.
        """
        with self._lock:
            if self._closed:
                raise ClosedHandle("nbd_close: the handle has been closed")
            self._say("close", "closing handle")
            self._drop()
            self._state, self._closed = State.CLOSED, True
            process, self._process = self._process, None
            if process is not None:
                if self._directory is not None:  # it waits for more clients
                    process.terminate()
                process.wait()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(ClosedHandle):
            self.close()

    def _drop(self) -> None:
        if self._shell is not None:
            self._shell.sock.close()
            self._shell = None
        if self._session is not None:
            self._session.close()

    def _die(self) -> None:
        self._drop()
        self._state = State.DEAD

    def _check_state(self, call: str, states: Sequence[State], what: str) -> None:
        if self._closed:
            raise ClosedHandle(f"nbd_{call}: the handle has been closed")
        session = self._session
        if self._state == State.READY and session is not None and session.broken is not None:
            self._state = State.DEAD
        if self._state not in states:
            number = errno.ENOTCONN if self._state == State.START else errno.EINVAL
            raise failure(call, f"invalid state: {self._state}: the handle must be {what}", number)

    def _check_created(self, call: str) -> None:
        self._check_state(call, (State.START, State.NEGOTIATING), "newly created, or negotiating")

    def connect_uri(self, uri: str) -> None:
        """Connect to the server and export that an NBD URI names.

        Called from: any thread.
        """
        with self._lock:
            self._check_state("connect_uri", (State.START,), "newly created")
            try:
                target = parse_uri(uri)
            except URIError as error:
                raise failure("connect_uri", str(error), errno.EINVAL) from error
            self._check_uri(target)
            self._export_name = target.export
            if target.tls:
                self._tls = TLS_REQUIRE
            self._tls_certificates = target.certificates or self._tls_certificates
            self._tls_psk_file = target.psk_file or self._tls_psk_file
            self._tls_username = target.username or self._tls_username
            self._tls_verify_peer = self._tls_verify_peer and target.verify
            self._connect("connect_uri", target)

    def _check_uri(self, target: Target) -> None:
        kind = ALLOW_TRANSPORT_UNIX if target.path else ALLOW_TRANSPORT_TCP
        if not self._uri_transports & kind:
            raise failure("connect_uri", "the URI's transport is not allowed", errno.EPERM)
        if target.tls and self._uri_tls == TLS_DISABLE:
            raise failure("connect_uri", "the URI asks for TLS, which is not allowed", errno.EPERM)
        if not target.tls and self._uri_tls == TLS_REQUIRE:
            raise failure("connect_uri", "the URI must ask for TLS", errno.EPERM)
        if (target.psk_file or target.certificates) and not self._uri_files:
            text = "the URI names files, which set_uri_allow_local_file allows"
            raise failure("connect_uri", text, errno.EPERM)

    def connect_unix(self, unixsocket: str) -> None:
        """Connect to a unix socket.

        Called from: any thread.
        """
        with self._lock:
            self._check_state("connect_unix", (State.START,), "newly created")
            path = os.fspath(unixsocket)
            self._connect("connect_unix", Target(path, path=path))

    def connect_tcp(self, hostname: str, port: str | int) -> None:
        """Connect to a host, at a port or the port of a service.

        Called from: any thread.
        """
        with self._lock:
            self._check_state("connect_tcp", (State.START,), "newly created")
            with told_as("connect_tcp"):
                number = int(port) if str(port).isdigit() else socket.getservbyname(str(port))
            target = Target(f"{hostname}:{port}", host=hostname, port=number)
            self._connect("connect_tcp", target)

    def connect_socket(self, sock: int) -> None:
        """Use a connected socket, by its descriptor, which belongs to the handle from now on.

        Called from: any thread.
        """
        with self._lock:
            self._check_state("connect_socket", (State.START,), "newly created")
            given = socket.socket(fileno=sock)
            self._connect("connect_socket", Target(f"socket {sock}", sock=given))

    def connect_command(self, argv: Sequence[str]) -> None:
        """Start a server that serves its standard input, and connect to it.

        Called from: any thread.
        """
        with self._lock:
            self._check_state("connect_command", (State.START,), "newly created")
            ours, theirs = socket.socketpair()
            with told_as("connect_command"):
                try:
                    self._process = subprocess.Popen(  # noqa: S603  (the caller's command)
                        list(argv), stdin=theirs.fileno(), stdout=theirs.fileno()
                    )
                except OSError:
                    ours.close()
                    raise
                finally:
                    theirs.close()
            self._connect("connect_command", Target(" ".join(argv), sock=ours))

    def connect_systemd_socket_activation(self, argv: Sequence[str]) -> None:
        """Start a server that is handed a listening socket as systemd does, and connect to it.

        Called from: any thread.
        """
        call = "connect_systemd_socket_activation"
        with self._lock:
            self._check_state(call, (State.START,), "newly created")
            self._directory = tempfile.mkdtemp(prefix="nbd-")
            path = str(Path(self._directory, "socket"))
            with told_as(call), socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()
                number = listener.fileno()
                command = [sys.executable, "-c", _ACTIVATE, str(number), *argv]
                environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "unknown"}
                self._process = subprocess.Popen(  # noqa: S603  (the caller's command)
                    command, pass_fds=[number], env=environment
                )
            self._connect(call, Target(path, path=path))

    def kill_subprocess(self, signum: int) -> None:
        """Send a signal to the server that was started for the handle, SIGTERM by default.

        Called from: any thread.
        """
        if self._process is None:
            raise failure("kill_subprocess", "no subprocess exists", errno.ESRCH)
        self._process.send_signal(signum or 15)

    def _connect(self, call: str, target: Target) -> None:
        """Go through the handshake, up to the choice of the export in option mode."""
        self._target = replace(
            target,
            certificates=self._tls_certificates,
            psk_file=self._tls_psk_file,
            username=self._tls_username or "",
            verify=self._tls_verify_peer,
        )
        self._say(call, f"connecting to {target.label}")
        with told_as(call):
            try:
                sock = target.sock or _connected(target)
                self._shell = Shell(sock, monotonic() + _SECONDS, _nothing)
                self._begin_negotiation()
            except BaseException:
                self._die()
                raise
        self._state = State.NEGOTIATING
        if not self._opt_mode:
            try:
                self._go(call)
            except Error:
                self._die()
                raise

    def _begin_negotiation(self) -> None:
        shell, handshake = self._shell, self._handshake
        assert shell is not None
        shell.run(handshake.greet())
        if self._tls != TLS_DISABLE:
            try:
                shell.run(handshake.begin_tls())
                shell.begin_tls(self._target)
            except OptionRefused:
                if self._tls == TLS_REQUIRE:
                    raise
        if self._structured:
            shell.run(handshake.structured_replies())

    def _ask(self, call: str, exchange: Callable[[], Any]) -> Any:
        """Carry out an exchange of the handshake; one that fails for good ends the handle."""
        shell = self._shell
        assert shell is not None
        self._say(call, "asking the server")
        with told_as(call):
            try:
                return shell.run(exchange())
            except OptionRefused:
                raise
            except BaseException:
                self._die()
                raise

    def _forget_export(self) -> None:
        self._export, self._contexts_agreed = None, False

    def _set_contexts(self, call: str, queries: Sequence[str]) -> None:
        handshake = self._handshake
        self._ask(call, lambda: handshake.set_contexts(self._export_name, queries))
        self._contexts_agreed = True

    def _go(self, call: str) -> None:
        """Choose the export."""
        handshake = self._handshake
        self._export = None
        if self._request_contexts:
            self._set_contexts(call, self._contexts)
        try:
            export = self._ask(call, lambda: handshake.go(self._export_name))
        except Error:
            self._contexts_agreed = False
            raise
        assert self._shell is not None
        self._session = Session(self._shell.sock, export)
        self._shell = None
        self._export, self._state = export, State.READY


def _connected(target: Target) -> socket.socket:
    if target.path:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(target.path)
        except BaseException:
            sock.close()
            raise
        return sock
    try:
        sock = socket.create_connection((target.host, target.port))
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{target.host!r} is no name of a host") from error
    prepare_tcp(sock)
    return sock


def _nothing(_: socket.socket) -> None:
    """Take no notice of a socket: nothing cancels this handshake."""
